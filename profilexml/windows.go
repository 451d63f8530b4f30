package profilexml

import (
	"fmt"
	"strconv"
	"strings"
)

// A Windows is a release of the Windows client, as its build number. The zero
// Windows is the newest there is here.
type Windows int

// The releases that differ for Always On VPN.
const (
	Windows10v1511 Windows = 10586
	Windows10v1607 Windows = 14393
	Windows10v1703 Windows = 15063
	Windows10v1709 Windows = 16299
	Windows10v1803 Windows = 17134
	Windows10v1809 Windows = 17763
	Windows10v1903 Windows = 18362
	Windows10v1909 Windows = 18363
	Windows10v2004 Windows = 19041
	Windows10v20H2 Windows = 19042
	Windows10v21H1 Windows = 19043
	Windows10v21H2 Windows = 19044
	Windows10v22H2 Windows = 19045
	Windows11v21H2 Windows = 22000
	Windows11v22H2 Windows = 22621
	Windows11v23H2 Windows = 22631
	Windows11v24H2 Windows = 26100
	Windows11v25H2 Windows = 26200
)

// newestWindows is what the zero Windows means.
const newestWindows = Windows11v25H2

var windowsNames = []struct {
	build Windows
	name  string
}{
	{Windows10v1511, "10-1511"},
	{Windows10v1607, "10-1607"},
	{Windows10v1703, "10-1703"},
	{Windows10v1709, "10-1709"},
	{Windows10v1803, "10-1803"},
	{Windows10v1809, "10-1809"},
	{Windows10v1903, "10-1903"},
	{Windows10v1909, "10-1909"},
	{Windows10v2004, "10-2004"},
	{Windows10v20H2, "10-20H2"},
	{Windows10v21H1, "10-21H1"},
	{Windows10v21H2, "10-21H2"},
	{Windows10v22H2, "10-22H2"},
	{Windows11v21H2, "11-21H2"},
	{Windows11v22H2, "11-22H2"},
	{Windows11v23H2, "11-23H2"},
	{Windows11v24H2, "11-24H2"},
	{Windows11v25H2, "11-25H2"},
}

// ParseWindows reads a release such as "10-1809", "11-24H2" or "24H2", or a
// build number. A name that both have, such as 22H2, is that of Windows 11.
func ParseWindows(s string) (Windows, error) {
	name := strings.ToUpper(strings.NewReplacer("Windows ", "", "windows ", "", "Windows", "", "windows", "", " ", "-").Replace(strings.TrimSpace(s)))
	for i := len(windowsNames) - 1; i >= 0; i-- {
		w := windowsNames[i]
		if name == strings.ToUpper(w.name) || name == strings.ToUpper(w.name[3:]) {
			return w.build, nil
		}
	}
	switch name {
	case "10":
		return Windows10v22H2, nil
	case "11":
		return newestWindows, nil
	}
	if n, err := strconv.Atoi(name); err == nil && n >= int(Windows10v1511) && n < 100000 {
		return Windows(n), nil
	}
	return 0, fmt.Errorf("%q is no release of Windows with Always On VPN: write 10-1809, 11-24H2 and the like, or a build number", s)
}

// String returns the release as people call it, such as "Windows 11 24H2".
func (w Windows) String() string {
	w = w.or()
	for i := len(windowsNames) - 1; i >= 0; i-- {
		if n := windowsNames[i]; n.build == w {
			return "Windows " + strings.Replace(n.name, "-", " ", 1)
		}
	}
	return fmt.Sprintf("Windows build %d", int(w))
}

// MarshalText returns the short name, such as "11-24H2".
func (w Windows) MarshalText() ([]byte, error) {
	return []byte(strings.Replace(strings.TrimPrefix(w.String(), "Windows "), " ", "-", 1)), nil
}

func (w Windows) or() Windows {
	if w == 0 {
		return newestWindows
	}
	return w
}

// is11 reports whether w is Windows 11.
func (w Windows) is11() bool { return w.or() >= Windows11v21H2 }

// A Channel is a way in which a profile gets to clients. They differ in what
// they take.
type Channel uint8

const (
	// Intune is a custom OMA-URI of Intune, and every other MDM. It compares
	// what it sent with what Windows reads back, so that spelling and order
	// matter.
	Intune Channel = iota
	// WMI is the bridge that PowerShell, Configuration Manager and scripts use.
	WMI
)

func (c Channel) String() string {
	switch c {
	case Intune:
		return "Intune"
	case WMI:
		return "WMI"
	}
	return fmt.Sprintf("Channel(%d)", uint8(c))
}

// ParseChannel reads the name of a Channel, in any case.
func ParseChannel(s string) (Channel, error) {
	switch strings.ToLower(s) {
	case "intune", "mdm":
		return Intune, nil
	case "wmi", "powershell", "sccm":
		return WMI, nil
	}
	return 0, fmt.Errorf("%q is no channel: it can be intune or wmi", s)
}

// A Scope says whose a profile is.
type Scope uint8

const (
	// AnyScope leaves it open: what the profile says decides.
	AnyScope Scope = iota
	// UserScope is ./User: one user's.
	UserScope
	// DeviceScope is ./Device: a device tunnel, or one for all users.
	DeviceScope
)

func (s Scope) String() string {
	switch s {
	case AnyScope:
		return "any"
	case UserScope:
		return "user"
	case DeviceScope:
		return "device"
	}
	return fmt.Sprintf("Scope(%d)", uint8(s))
}

// ParseScope reads the name of a Scope.
func ParseScope(s string) (Scope, error) {
	for _, v := range []Scope{AnyScope, UserScope, DeviceScope} {
		if strings.EqualFold(s, v.String()) {
			return v, nil
		}
	}
	return 0, fmt.Errorf("%q is no scope: it can be user, device or any", s)
}
