package profilexml

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// A Delivery is a profile on its way to clients: by Intune, by Graph, by SyncML,
// or by a script. What it delivers is in the form in which Windows reads it back:
// one line, readback order, no comments.
//
// A Delivery must not be changed while it is used.
type Delivery struct {
	// Name is what the connection is called: letters, digits, spaces and such.
	Name string
	// Scope is whose it is. AnyScope takes it from the profile: DeviceScope for
	// device tunnels and LockDown, and UserScope for others. DeviceScope with
	// neither is a connection of all users.
	Scope Scope
	// Document is the profile.
	Document *Document
	// Channel is how it gets there, which decides how its spelling is set right.
	Channel Channel
	// KeepStrategy has scripts of DeviceScope keep Windows from rewriting
	// VpnStrategy (VPNStrategyUsageDisabled).
	KeepStrategy bool
}

// intuneFile is the name under which Intune shows the profile.
const intuneFile = "profile.xml"

// check says whether it can be delivered.
func (d *Delivery) check() error {
	if d.Document == nil {
		return errors.New("there is no profile to deliver")
	}
	if d.Name == "" {
		return errors.New("the connection has no name")
	}
	k := &check{Checker: &Checker{Name: d.Name}, doc: d.Document, rule: new(Rule)}
	checkName(k)
	for i := range k.findings {
		return fmt.Errorf("%s: use letters, digits, spaces and hyphens", k.findings[i].Text)
	}
	if strings.Contains(d.Name, "%") {
		return fmt.Errorf("the name %q has a percent sign, which stands for something else in a path of MDM", d.Name)
	}
	switch own := d.own(); {
	case own == DeviceScope && d.Scope == UserScope:
		return errors.New("a device tunnel and LockDown are the computer's: they can't be delivered to a user")
	case own == UserScope && d.Scope == DeviceScope:
		return errors.New("an app's profile that needs its own surface is a user's: it can't be delivered to the computer")
	}
	return nil
}

// own returns whose the profile must be, AnyScope if it can be anybody's.
func (d *Delivery) own() Scope {
	for _, name := range []string{"DeviceTunnel", "LockDown"} {
		if v, _ := boolean(d.Document.text(d.Document.Root.child(name))); v {
			return DeviceScope
		}
	}
	if v, _ := boolean(d.Document.text(d.Document.Root.child("RequireVpnClientAppUI"))); v {
		return UserScope
	}
	return AnyScope
}

// scope returns whose it is.
func (d *Delivery) scope() Scope {
	if d.Scope != AnyScope {
		return d.Scope
	}
	if d.own() == DeviceScope {
		return DeviceScope
	}
	return UserScope
}

// Profile returns the profile as it is delivered: its spelling set right where
// that is safe, laid out for a channel, in UTF-8.
func (d *Delivery) Profile() (*Document, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	c := &Checker{Channel: d.Channel, Scope: d.scope(), Name: d.Name}
	fixed, _, err := c.Fix(d.Document)
	if err != nil {
		return nil, fmt.Errorf("set the profile right: %w", err)
	}
	return Format(fixed, ChannelStyle()), nil
}

// OMAURI returns the path of the profile in MDM, such as
// ./User/Vendor/MSFT/VPNv2/Always%20On%20VPN/ProfileXML.
func (d *Delivery) OMAURI() (string, error) {
	if err := d.check(); err != nil {
		return "", err
	}
	return d.node() + "/ProfileXML", nil
}

// node is the path of the connection.
func (d *Delivery) node() string {
	where := "./User"
	if d.scope() == DeviceScope {
		where = "./Device"
	}
	return where + "/Vendor/MSFT/VPNv2/" + url.PathEscape(d.Name)
}

// instanceID is the name as the WMI bridge has it: only spaces are written
// otherwise.
func (d *Delivery) instanceID() string { return strings.ReplaceAll(d.Name, " ", "%20") }

// graphSetting is omaSettingStringXml.
type graphSetting struct {
	Type        string `json:"@odata.type"`
	DisplayName string `json:"displayName"`
	Description string `json:"description"`
	OMAURI      string `json:"omaUri"`
	FileName    string `json:"fileName"`
	Value       string `json:"value"` // base64 of UTF-8
}

// graphConfiguration is windows10CustomConfiguration.
type graphConfiguration struct {
	Type        string         `json:"@odata.type"`
	DisplayName string         `json:"displayName"`
	Description string         `json:"description"`
	OMASettings []graphSetting `json:"omaSettings"`
}

// GraphPath is where a device configuration is posted to. It needs the permission
// DeviceManagementConfiguration.ReadWrite.All; what is made must be assigned.
const GraphPath = "https://graph.microsoft.com/v1.0/deviceManagement/deviceConfigurations"

// Graph returns the body that is posted to [GraphPath]: a configuration of Intune
// with the profile as its one setting.
func (d *Delivery) Graph() ([]byte, error) {
	doc, err := d.Profile()
	if err != nil {
		return nil, err
	}
	uri, err := d.OMAURI()
	if err != nil {
		return nil, err
	}
	description := "Always On VPN, for users"
	if d.scope() == DeviceScope {
		description = "Always On VPN, for devices"
	}
	b, err := json.MarshalIndent(graphConfiguration{
		Type: "#microsoft.graph.windows10CustomConfiguration", DisplayName: d.Name, Description: description,
		OMASettings: []graphSetting{{
			Type: "#microsoft.graph.omaSettingStringXml", DisplayName: d.Name, Description: description, OMAURI: uri, FileName: intuneFile,
			Value: base64.StdEncoding.EncodeToString(doc.Bytes()),
		}},
	}, "", "  ")
	return append(b, '\n'), err
}

// SyncML returns the commands that add the profile, all or none. replace deletes
// the connection first, which fails if there is none; to change a part of a
// profile isn't safe.
func (d *Delivery) SyncML(replace bool) ([]byte, error) {
	doc, err := d.Profile()
	if err != nil {
		return nil, err
	}
	text, ok := asciiXML(doc)
	if !ok {
		text = doc.Text
	}
	var b strings.Builder
	b.WriteString("<SyncML xmlns=\"SYNCML:SYNCML1.2\">\n  <SyncBody>\n    <Atomic>\n      <CmdID>1</CmdID>\n")
	id := 2
	if replace {
		fmt.Fprintf(&b, "      <Delete>\n        <CmdID>%d</CmdID>\n        <Item>\n          <Target><LocURI>%s</LocURI></Target>\n        </Item>\n      </Delete>\n", id, escape(d.node()))
		id++
	}
	fmt.Fprintf(&b, "      <Add>\n        <CmdID>%d</CmdID>\n        <Item>\n          <Target><LocURI>%s/ProfileXML</LocURI></Target>\n", id, escape(d.node()))
	b.WriteString("          <Meta><Format xmlns=\"syncml:metinf\">chr</Format><Type xmlns=\"syncml:metinf\">text/plain</Type></Meta>\n")
	b.WriteString("          <Data>" + escape(text) + "</Data>\n")
	b.WriteString("        </Item>\n      </Add>\n    </Atomic>\n    <Final/>\n  </SyncBody>\n</SyncML>\n")
	return []byte(b.String()), nil
}

// hashOf identifies a profile.
func hashOf(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}
