package profilexml

import (
	"errors"
	"fmt"
	"strings"
)

// CmdletScript returns the PowerShell that makes the connection with the commands
// of Windows instead of a profile: Add-VpnConnection,
// Set-VpnConnectionIPsecConfiguration and their like. They can't say everything:
// what is lost is listed in comments, and returned.
func (d *Delivery) CmdletScript() (script string, lost []string, err error) {
	doc, err := d.Profile()
	if err != nil {
		return "", nil, err
	}
	p, err := doc.Profile()
	if err != nil {
		return "", nil, fmt.Errorf("read the profile: %w", err)
	}
	if p.NativeProfile == nil {
		return "", nil, errors.New("a plug-in's profile can't be made with Add-VpnConnection here: deliver the profile")
	}
	if err := commandable(p); err != nil {
		return "", nil, err
	}
	w := &cmdlets{doc: doc, p: p, allUsers: d.scope() == DeviceScope}
	w.collect()
	var b strings.Builder
	run := "It must be run as the user."
	if w.allUsers {
		run = "It must be run as an administrator."
	}
	b.WriteString(commentPS("Makes a VPN connection with the commands of Windows, in place of one of the same name.", run))
	for _, l := range w.lost {
		b.WriteString(commentPS("Not to be had this way: " + l))
	}
	b.WriteString("Set-StrictMode -Version 2.0\n$ErrorActionPreference = 'Stop'\n\n$ProfileName = " + quotePS(d.Name) + "\n")
	b.WriteString(w.head.String())
	b.WriteString("\nif (Get-VpnConnection -Name $ProfileName" + w.everybody() + " -ErrorAction SilentlyContinue) {\n    Remove-VpnConnection -Name $ProfileName" + w.everybody() + " -Force\n}\n")
	b.WriteString(w.body.String())
	return b.String(), w.lost, nil
}

// commandable says why commands can't make a profile at all.
func commandable(p *Profile) error {
	n := p.NativeProfile
	switch {
	case len(n.Servers) == 0:
		return errors.New("the profile has no server")
	case tunnelTypes[n.NativeProtocolType] == "":
		return fmt.Errorf("Add-VpnConnection has no protocol %.60q", n.NativeProtocolType)
	case encryptionLevels[p.DataEncryption] == "":
		return fmt.Errorf("Add-VpnConnection has no encryption %.60q", p.DataEncryption)
	}
	return nil
}

// cmdlets collects the commands for a profile.
type cmdlets struct {
	doc        *Document
	p          *Profile
	allUsers   bool
	head, body strings.Builder
	lost       []string
}

func (w *cmdlets) everybody() string {
	if w.allUsers {
		return " -AllUserConnection"
	}
	return ""
}

func (w *cmdlets) lose(format string, args ...any) {
	w.lost = append(w.lost, fmt.Sprintf(format, args...))
}

// tunnelTypes are what -TunnelType calls protocols.
var tunnelTypes = map[string]string{"IKEv2": "Ikev2", "SSTP": "Sstp", "L2TP": "L2tp", "PPTP": "Pptp", "Automatic": "Automatic", "ProtocolList": "Automatic"}

// encryptionLevels are what -EncryptionLevel calls DataEncryption.
var encryptionLevels = map[string]string{"": "Required", "Require": "Required", "None": "NoEncryption", "Max": "Maximum", "Optional": "Optional"}

func (w *cmdlets) collect() {
	n := w.p.NativeProfile
	args := []string{"-Name $ProfileName", "-ServerAddress " + quotePS(n.Servers[0].Address), "-TunnelType " + tunnelTypes[n.NativeProtocolType]}
	if len(n.Servers) > 1 {
		var list []string
		for _, s := range n.Servers {
			friendly := s.Name
			if friendly == "" {
				friendly = s.Address
			}
			list = append(list, "(New-VpnServerAddress -ServerAddress "+quotePS(s.Address)+" -FriendlyName "+quotePS(friendly)+")")
		}
		args = append(args, "-ServerList @("+strings.Join(list, ", ")+")")
	}
	args = append(args, w.authentication(&n.Authentication)...)
	args = append(args, "-EncryptionLevel "+encryptionLevels[w.p.DataEncryption])
	if n.RoutingPolicyType != "ForceTunnel" {
		args = append(args, "-SplitTunneling")
	}
	if isTrue(w.p.RememberCredentials) {
		args = append(args, "-RememberCredential")
	}
	if len(w.p.DNSSuffix) > 0 {
		args = append(args, "-DnsSuffix "+quotePS(w.p.DNSSuffix[0]))
	}
	if len(w.p.DNSSuffix) > 1 {
		w.lose("DnsSuffix beyond the first")
	}
	if n.L2TPPSK != "" {
		w.lose("L2tpPsk, since the script must hold no secret: set it with Set-VpnConnection -L2tpPsk")
	}
	if w.allUsers {
		args = append(args, "-AllUserConnection")
	}
	w.body.WriteString(invokePS("Add-VpnConnection", append(args, "-Force")...))
	w.suite(n)
	w.routes(n)
	w.triggers()
	w.proxy()
	w.rest(n)
}

func isTrue(v *bool) bool { return v != nil && *v }

func (w *cmdlets) authentication(a *Authentication) []string {
	if strings.EqualFold(a.MachineMethod, "Certificate") {
		return []string{"-AuthenticationMethod MachineCertificate"}
	}
	if !strings.EqualFold(a.UserMethod, "Eap") {
		return []string{"-AuthenticationMethod MSChapv2"}
	}
	args := []string{"-AuthenticationMethod Eap"}
	host := w.doc.Root.at("NativeProfile/Authentication/Eap/Configuration/EapHostConfig")
	if host == nil {
		return args
	}
	text := w.doc.selfContained(host)
	if eap, err := ParseString(text); err == nil {
		text, _ = asciiXML(eap)
	}
	w.head.WriteString("$Eap = New-Object -TypeName Xml.XmlDocument\n$Eap.XmlResolver = $null\n$Eap.LoadXml(" + quoteTextPS(text) + ")\n")
	return append(args, "-EapConfigXmlStream $Eap")
}

func (w *cmdlets) suite(n *NativeProfile) {
	if n.CryptographySuite == nil {
		return
	}
	s := n.CryptographySuite.PowerShell()
	args := []string{"-ConnectionName $ProfileName"}
	for i, v := range valuesOf(&s) {
		args = append(args, "-"+suiteFields[i].name+" "+quotePS(*v))
	}
	if w.allUsers {
		args = append(args, "-AllUserConnection")
	}
	w.body.WriteString(invokePS("Set-VpnConnectionIPsecConfiguration", append(args, "-Force")...))
}

func (w *cmdlets) routes(n *NativeProfile) {
	for _, r := range w.p.Route {
		if isTrue(r.ExclusionRoute) {
			w.lose("the exclusion of %v", r.Prefix())
			continue
		}
		line := "Add-VpnConnectionRoute -ConnectionName $ProfileName -DestinationPrefix " + quotePS(r.Prefix().String())
		if r.Metric != nil {
			line += fmt.Sprintf(" -RouteMetric %d", *r.Metric)
		}
		w.body.WriteString(line + w.everybody() + "\n")
	}
	if isTrue(n.DisableClassBasedDefaultRoute) {
		w.lose("DisableClassBasedDefaultRoute: set it in the phone book, with aovlb rasphone set")
	}
}

// triggers are only for connections of one user.
func (w *cmdlets) triggers() {
	p := w.p
	if w.allUsers {
		if len(p.DomainNameInformation)+len(p.TrustedNetworkDetection)+len(p.AppTrigger) > 0 {
			w.lose("DNS rules, trusted networks and app triggers of a connection of all users")
		}
		return
	}
	for _, d := range p.DomainNameInformation {
		line := "Add-VpnConnectionTriggerDnsConfiguration -Name $ProfileName -DnsSuffix " + quotePS(d.DomainName)
		var servers []string
		for _, s := range d.DNSServers {
			servers = append(servers, s.String())
		}
		if len(servers) > 0 {
			line += " -DnsIPAddress " + quoteListPS(servers)
		}
		w.body.WriteString(line + " -Force\n")
		if d.WebProxyServers != "" {
			w.lose("the web proxy of a DNS rule")
		}
	}
	if len(p.TrustedNetworkDetection) > 0 {
		w.body.WriteString("Add-VpnConnectionTriggerTrustedNetwork -Name $ProfileName -DnsSuffix " + quoteListPS(p.TrustedNetworkDetection) + " -Force\n")
	}
	for _, a := range p.AppTrigger {
		w.body.WriteString("Add-VpnConnectionTriggerApplication -Name $ProfileName -ApplicationID " + quotePS(a.App.ID) + " -Force\n")
	}
}

func (w *cmdlets) proxy() {
	switch p := w.p.Proxy; {
	case p == nil:
	case p.Manual != nil:
		w.body.WriteString("Set-VpnConnectionProxy -Name $ProfileName -ProxyServer " + quotePS(p.Manual.Server) + "\n")
	case p.AutoConfigURL != "":
		w.body.WriteString("Set-VpnConnectionProxy -Name $ProfileName -AutoConfigurationScript " + quotePS(p.AutoConfigURL) + "\n")
	}
}

// rest names what no command has.
func (w *cmdlets) rest(n *NativeProfile) {
	p := w.p
	for _, x := range []struct {
		there bool
		name  string
	}{
		{isTrue(p.AlwaysOn), "AlwaysOn: the connection isn't made by itself, but for its triggers"},
		{isTrue(p.DeviceTunnel), "DeviceTunnel: the connection is one of all users, made by them"},
		{isTrue(p.LockDown), "LockDown"},
		{len(p.TrafficFilter) > 0, "TrafficFilter"},
		{p.DeviceCompliance != nil, "DeviceCompliance"},
		{isTrue(p.RegisterDNS), "RegisterDNS: set IpDnsFlags in the phone book, with aovlb rasphone set"},
		{n.NativeProtocolType == "ProtocolList", "ProtocolList: set VpnStrategy in the phone book, with aovlb rasphone set"},
		{p.NetworkOutageTime != nil || p.IPv4InterfaceMetric != nil || p.IPv6InterfaceMetric != nil || p.UseRasCredentials != nil || isTrue(p.DisableIKEv2Fragmentation) || isTrue(n.PlumbIKEv2TSAsRoutes), "metrics, outage time, credentials, fragmentation and selectors: set them in the phone book, with aovlb rasphone set"},
		{isTrue(p.DisableAdvancedOptionsEditButton) || isTrue(p.DisableDisconnectButton), "the buttons that are greyed out"},
	} {
		if x.there {
			w.lose("%s", x.name)
		}
	}
}
