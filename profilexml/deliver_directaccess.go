package profilexml

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// A DirectAccess is what a network needs that still has DirectAccess, or moves
// from it to Always On VPN. The zero value leaves everything as it is.
type DirectAccess struct {
	// ISATAP, if not nil, has a computer of the internal network reach clients
	// (manage-out).
	ISATAP *ISATAP
	// NetworkLocation is the URL by which clients know that they are inside; it
	// must be HTTPS, and answer inside only.
	NetworkLocation string
	// Probes, if not nil, are what clients take for signs of the internal
	// network. They are for the policy of clients.
	Probes *CorporateProbes
	// Experience, if not nil, is what clients show.
	Experience *ClientExperience
	// RenewDays has the server replace the certificates of IP-HTTPS and of its own
	// network location server, if they end in so many days or fewer, by copies
	// with a new key. It is for those that sign themselves; others are left to the
	// authority they come from. 0 leaves all.
	RenewDays int
}

// ISATAP is a router of ISATAP (RFC 5214), and the route to clients.
type ISATAP struct {
	// Router is its name or address.
	Router string
	// Prefix is published on the router itself, after each start; 64 bits. The
	// zero Prefix is for other computers, which only ask Router.
	Prefix netip.Prefix
}

// CorporateProbes are the settings of Set-NCSIPolicyConfiguration.
type CorporateProbes struct {
	WebsiteURL  string     // a page that is inside only
	DNSHost     string     // a name that is inside only
	DNSAddress  netip.Addr // what it resolves to
	LocationURL string     // as NetworkLocation
	// Prefixes are the networks inside.
	Prefixes []netip.Prefix
}

// ClientExperience are settings of Set-DAClientExperienceConfiguration.
type ClientExperience struct {
	PolicyStore string   // a GPO, such as corp.example.com\DirectAccess Client Settings
	Resources   []string // what tells whether it works: HTTP:https://inside.example.com, PING:10.0.0.1
	Name        string   // what the connection is called
	Email       string   // of the help desk
	// LocalNames lets users disconnect the internal DNS.
	LocalNames bool
	// ForceTunnel sends everything through the tunnel.
	ForceTunnel bool
	// ManualEntryPoint lets users choose the entry point of a multisite.
	ManualEntryPoint bool
	// GSLB is the name by which a global load balancer leads clients to an entry
	// point.
	GSLB string
	// EntryPoints are those of a multisite.
	EntryPoints []EntryPoint
}

// EntryPoint is an entry of a client's table of entry points
// (New-DAEntryPointTableItem).
type EntryPoint struct {
	Name    string       // what users see
	Site    string       // the site of Active Directory that its clients are in
	Address netip.Addr   // where its clients find it
	Range   netip.Prefix // the IPv6 network of its clients
	GSLB    netip.Addr   // what the name GSLB resolves to for it; zero if there is none
}

// isatapTask is the task of the router, which loses its settings when it starts.
const isatapTask = "aovlb ISATAP router"

// Script returns the PowerShell. ISATAP.Prefix is for the router, Experience and
// NetworkLocation and RenewDays for the DirectAccess server, Probes for clients.
func (d *DirectAccess) Script() (string, error) {
	var b strings.Builder
	b.WriteString("$ErrorActionPreference = 'Stop'\n")
	for _, part := range []func(*strings.Builder) error{d.isatap, d.location, d.probes, d.experience, d.renewal} {
		if err := part(&b); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func (d *DirectAccess) isatap(b *strings.Builder) error {
	i := d.ISATAP
	if i == nil {
		return nil
	}
	if !isHost(i.Router) {
		return fmt.Errorf("%q is no ISATAP router: write a name or an address", i.Router)
	}
	b.WriteString("Set-NetIsatapConfiguration -State Enabled -Router " + quotePS(i.Router) + "\n")
	if !i.Prefix.IsValid() {
		return nil
	}
	if i.Prefix.Bits() != 64 || !i.Prefix.Addr().Is6() || i.Prefix != i.Prefix.Masked() {
		return fmt.Errorf("the prefix of ISATAP must have 64 bits of IPv6, unlike %v", i.Prefix)
	}
	reset := "$Isatap = Get-NetIPInterface -AddressFamily IPv6 | Where-Object { $_.InterfaceAlias -like 'isatap*' } | Select-Object -First 1\n" +
		"Set-NetIPInterface -InterfaceIndex $Isatap.ifIndex -AddressFamily IPv6 -Forwarding Enabled -Advertising Enabled\n" +
		"if (-not (Get-NetRoute -AddressFamily IPv6 -DestinationPrefix '" + i.Prefix.String() + "' -InterfaceIndex $Isatap.ifIndex -ErrorAction SilentlyContinue)) {\n" +
		"    New-NetRoute -AddressFamily IPv6 -DestinationPrefix '" + i.Prefix.String() + "' -InterfaceIndex $Isatap.ifIndex -Publish Yes | Out-Null\n}\n"
	b.WriteString("# A router of ISATAP loses these when it starts, so a task sets them again.\n" + reset)
	b.WriteString("$Action = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument " + quotePS("-NoProfile -NonInteractive -EncodedCommand "+encodedCommand(reset)) + "\n")
	b.WriteString("Register-ScheduledTask -TaskName '" + isatapTask + "' -Action $Action -Trigger (New-ScheduledTaskTrigger -AtStartup) -Principal (New-ScheduledTaskPrincipal -UserId 'S-1-5-18' -LogonType ServiceAccount -RunLevel Highest) -Force | Out-Null\n")
	return nil
}

func (d *DirectAccess) location(b *strings.Builder) error {
	if d.NetworkLocation == "" {
		return nil
	}
	if err := checkURL(d.NetworkLocation, "https"); err != nil {
		return err
	}
	b.WriteString("Set-DANetworkLocationServer -Url " + quotePS(d.NetworkLocation) + " -CheckReachability\n")
	return nil
}

// checkURL refuses what is no URL of one of the schemes.
func checkURL(s string, schemes ...string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || !isOneOf(u.Scheme, schemes) {
		return fmt.Errorf("%q is no URL of %s", s, strings.Join(schemes, " or "))
	}
	return nil
}

func (d *DirectAccess) probes(b *strings.Builder) error {
	p := d.Probes
	if p == nil {
		return nil
	}
	var args []string
	for _, u := range []struct{ flag, url string }{{"-DomainLocationDeterminationURL", p.LocationURL}, {"-CorporateWebsiteProbeURL", p.WebsiteURL}} {
		if u.url == "" {
			continue
		}
		if err := checkURL(u.url, "http", "https"); err != nil {
			return err
		}
		args = append(args, u.flag+" "+quotePS(u.url))
	}
	if p.DNSHost != "" {
		if !isHost(p.DNSHost) || !p.DNSAddress.IsValid() {
			return fmt.Errorf("%q must be a name, and its address given", p.DNSHost)
		}
		args = append(args, "-CorporateDNSProbeHostName "+quotePS(p.DNSHost), "-CorporateDNSProbeHostAddress "+quotePS(p.DNSAddress.String()))
	}
	var prefixes []string
	for _, x := range p.Prefixes {
		prefixes = append(prefixes, x.String())
	}
	if len(prefixes) > 0 {
		args = append(args, "-CorporateSitePrefixList "+quotePS(strings.Join(prefixes, ",")))
	}
	if len(args) == 0 {
		return errors.New("there is nothing that clients could probe")
	}
	b.WriteString(invokePS("Set-NCSIPolicyConfiguration", args...))
	return nil
}

func (d *DirectAccess) experience(b *strings.Builder) error {
	e := d.Experience
	if e == nil {
		return nil
	}
	args := []string{"-PolicyStore " + quotePS(e.PolicyStore)}
	if e.PolicyStore == "" {
		return errors.New("what clients show is set in a GPO: name it")
	}
	for _, r := range e.Resources {
		kind, target, _ := strings.Cut(r, ":")
		if kind == "PING" && isHost(target) || kind == "FILE" && target != "" {
			continue
		}
		if err := checkURL(target, "http", "https"); kind != "HTTP" || err != nil {
			return fmt.Errorf("%q must be HTTP: and a URL, PING: and an address, or FILE: and a path", r)
		}
	}
	if len(e.Resources) > 0 {
		args = append(args, "-CorporateResources "+quoteListPS(e.Resources))
	}
	if e.Name != "" {
		args = append(args, "-FriendlyName "+quotePS(e.Name))
	}
	if e.Email != "" {
		args = append(args, "-SupportEmail "+quotePS(e.Email))
	}
	args = append(args, fmt.Sprintf("-PreferLocalNamesAllowed $%v", e.LocalNames))
	force := "Disabled"
	if e.ForceTunnel {
		force = "Enabled"
	}
	args = append(args, "-ForceTunneling "+force)
	if e.ManualEntryPoint {
		args = append(args, "-ManualEntryPointSelectionAllowed $true")
	}
	if e.GSLB != "" {
		if !isHost(e.GSLB) {
			return fmt.Errorf("%q is no name of a global load balancer", e.GSLB)
		}
		args = append(args, "-GslbFqdn "+quotePS(e.GSLB))
	}
	b.WriteString(invokePS("Set-DAClientExperienceConfiguration", args...))
	for _, p := range e.EntryPoints {
		if err := p.write(b, e.PolicyStore); err != nil {
			return err
		}
	}
	return nil
}

// write makes the entry, unless there is one of its name.
func (p *EntryPoint) write(b *strings.Builder, store string) error {
	if strings.TrimSpace(p.Name) == "" || strings.TrimSpace(p.Site) == "" || !p.Address.IsValid() {
		return fmt.Errorf("the entry point %q needs a name, the site of its clients, and its address", p.Name)
	}
	if !p.Range.IsValid() || !p.Range.Addr().Is6() || p.Range != p.Range.Masked() {
		return fmt.Errorf("the entry point %q needs the IPv6 network of its clients, unlike %v", p.Name, p.Range)
	}
	args := []string{
		"-PolicyStore " + quotePS(store), "-EntryPointName " + quotePS(p.Name), "-ADSite " + quotePS(p.Site),
		"-EntryPointRange " + quotePS(p.Range.String()), "-EntryPointIPAddress " + quotePS(p.Address.String()),
	}
	if p.GSLB.IsValid() {
		args = append(args, "-GslbIP "+quotePS(p.GSLB.String()))
	}
	fmt.Fprintf(b, "if (-not (Get-DAEntryPointTableItem -PolicyStore %s -EntryPointName %s -ErrorAction SilentlyContinue)) {\n%s}\n", quotePS(store), quotePS(p.Name), invokePS("New-DAEntryPointTableItem", args...))
	return nil
}

// maxRenewDays is longer than certificates that sign themselves are valid here.
const maxRenewDays = 5 * 366

func (d *DirectAccess) renewal(b *strings.Builder) error {
	switch {
	case d.RenewDays == 0:
		return nil
	case d.RenewDays < 0 || d.RenewDays > maxRenewDays:
		return fmt.Errorf("certificates can't be renewed %d days before they end: it can be 1 to %d", d.RenewDays, maxRenewDays)
	}
	fmt.Fprintf(b, "$RenewDays = %d\n%s", d.RenewDays, scriptRenewal)
	return nil
}

// scriptRenewal copies certificates that end soon.
const scriptRenewal = `
# Copies a certificate that signs itself and ends soon. Others come from an
# authority, and are renewed there.
function Copy-Ending($Old) {
    if ($null -eq $Old -or $Old.Subject -ne $Old.Issuer -or $Old.NotAfter -gt (Get-Date).AddDays($RenewDays)) { return $null }
    $Source = Get-Item -Path ('Cert:\LocalMachine\My\' + $Old.Thumbprint)
    $Copy = New-SelfSignedCertificate -CloneCert $Source -CertStoreLocation 'Cert:\LocalMachine\My'
    return Get-Item -Path ('Cert:\LocalMachine\My\' + $Copy.Thumbprint)
}

$Access = Get-RemoteAccess
$Copy = Copy-Ending $Access.SslCertificate
if ($null -ne $Copy) { Set-RemoteAccess -SslCertificate $Copy }
$Copy = Copy-Ending $Access.NlsCertificate
if ($null -ne $Copy) { Set-DANetworkLocationServer -NlsOnDAServer -Certificate $Copy }
`
