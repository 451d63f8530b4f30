package profilexml

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A ServerSetup is what the gateways need so that clients with a profile get in.
// The zero value leaves everything as it is.
type ServerSetup struct {
	// Suite, if not nil, is the cryptography. It comes with the lifetimes that are
	// recommended beside it: 8 hours for ESP, 24 hours for IKE, and 1000 MB.
	Suite *Suite
	// Fragmentation has IKEv2 send its messages in pieces (RFC 7383), which
	// Windows Server since 1803 can and doesn't by itself.
	Fragmentation bool
	// Root is the root certificate, by thumbprint, whose computers may come in with
	// IKEv2; RRAS takes one at most. The zero Thumbprint leaves it as it is, and
	// those of all trusted roots may come in unless there is one. It must be
	// installed on the gateway.
	Root Thumbprint
	// EKUs are the usages that certificates of computers must have besides.
	EKUs []string
	// UserMethods are what is accepted: EAP, Certificate, MsChapv2, Chap, PAP,
	// PreSharedKey. None leaves it as it is.
	UserMethods []string
	// CheckRevocation has IKEv2 refuse revoked certificates (CertAuthFlags).
	CheckRevocation bool
	// Offload, if not nil, sets whether TLS of SSTP ends before the gateway.
	Offload *SSTPOffload
	// IKEv2Ports and SSTPPorts are how many clients there can be; 0 leaves it.
	IKEv2Ports, SSTPPorts int
	// RADIUS are the servers that say who gets in. Their secrets are asked for
	// when the script runs, unless they are there already.
	RADIUS []string
	// Balanced is for gateways behind a load balancer. Windows answers the first
	// message of IKEv2 with a cookie as soon as it has more than a few connections
	// (IkeNumEstablishedForInitialQuery), which costs a round trip for each client
	// and confuses balancers whose clients come from few addresses; and it keeps
	// connections whose clients have gone. So that number is raised to 50,000, and
	// clients are let go after 5 minutes of silence, and 2 without a network.
	Balanced bool
	// NoRestart leaves out the restart, without which most of it isn't used. It
	// ends all connections.
	NoRestart bool
}

// SSTPOffload says where TLS of SSTP ends.
type SSTPOffload struct {
	// Enabled has the gateway take HTTP on port 80 from a load balancer.
	Enabled bool
	// Certificate is the SHA-256 hash of the load balancer's certificate, which
	// clients bind their authentication to. Offload needs it.
	Certificate [32]byte
}

// acceptedMethods are the values of -UserAuthProtocolAccepted.
var acceptedMethods = []string{"EAP", "Certificate", "MsChapv2", "Chap", "PAP", "PreSharedKey"}

// maxPorts is how many ports RRAS has at most, of a kind.
const maxPorts = 30000

func (s *ServerSetup) check() error {
	var errs []error
	for _, m := range s.UserMethods {
		if !isOneOf(m, acceptedMethods) {
			errs = append(errs, fmt.Errorf("%q isn't accepted by RRAS: it can be %s", m, strings.Join(acceptedMethods, ", ")))
		}
	}
	for _, e := range s.EKUs {
		if !isOID(e) {
			errs = append(errs, fmt.Errorf("%q is no object identifier", e))
		}
	}
	for _, n := range []int{s.IKEv2Ports, s.SSTPPorts} {
		if n < 0 || n > maxPorts {
			errs = append(errs, fmt.Errorf("%d ports: RRAS has up to %d", n, maxPorts))
		}
	}
	for _, r := range s.RADIUS {
		if !isHost(r) {
			errs = append(errs, fmt.Errorf("%q is no RADIUS server: write a name or an address", r))
		}
	}
	if s.Offload != nil && s.Offload.Enabled && s.Offload.Certificate == ([32]byte{}) {
		errs = append(errs, errors.New("offload needs the SHA-256 hash of the load balancer's certificate"))
	}
	if s.Suite != nil {
		for i := range suiteFields {
			if _, err := s.Suite.lookup(i); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

func isOneOf(s string, list []string) bool {
	return slices.Contains(list, s)
}

// isHost reports whether s is an address or a name that can be written anywhere.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return s != "" && len(s) <= 253 && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '.' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

const (
	ikev2Parameters  = `HKLM:\SYSTEM\CurrentControlSet\Services\RemoteAccess\Parameters\Ikev2`
	ikeextParameters = `HKLM:\SYSTEM\CurrentControlSet\Services\IKEEXT\Parameters`
	sstpParameters   = `HKLM:\SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters`
)

// Script returns the PowerShell for an RRAS gateway, to be run there as an
// administrator. It may be run again.
func (s *ServerSetup) Script() (string, error) {
	if err := s.check(); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(commentPS("Sets up an RRAS gateway for Always On VPN. It must be run on it as an administrator.") + "$ErrorActionPreference = 'Stop'\n")
	s.suite(&b)
	if s.Fragmentation {
		b.WriteString(setDWord(ikev2Parameters, "EnableServerFragmentation", 1))
	}
	if s.CheckRevocation {
		b.WriteString(setDWord(ikev2Parameters, "CertAuthFlags", 4))
	}
	if s.Balanced {
		b.WriteString(setDWord(ikeextParameters, "IkeNumEstablishedForInitialQuery", 50000))
		b.WriteString("$Netsh = Start-Process -FilePath 'netsh.exe' -ArgumentList 'ras set ikev2connection idletimeout=5 nwoutagetime=2' -NoNewWindow -Wait -PassThru\n" +
			"if ($Netsh.ExitCode -ne 0) { throw 'netsh has not set the times of IKEv2' }\n")
	}
	s.protocol(&b)
	s.ports(&b)
	s.offload(&b)
	if len(s.RADIUS) > 0 {
		b.WriteString("$RadiusServers = " + quoteListPS(s.RADIUS) + scriptRADIUS)
	}
	if s.Balanced && !s.NoRestart {
		b.WriteString("Restart-Service -Name 'IKEEXT' -Force\n")
	}
	if !s.NoRestart {
		b.WriteString("# This ends all connections.\nRestart-Service -Name RemoteAccess -Force -PassThru\n")
	}
	return b.String(), nil
}

// scriptRADIUS adds RADIUS servers. RRAS takes no server while it asks Windows who
// gets in, and only turns to RADIUS together with the first.
const scriptRADIUS = `
foreach ($Name in $RadiusServers) {
    $Known = @(Get-RemoteAccessRadius -ErrorAction SilentlyContinue | Where-Object { $_.Purpose -eq 'Authentication' })
    if (@($Known | Where-Object { $_.ServerName -eq $Name }).Count -gt 0) { continue }
    $Secret = (New-Object -TypeName Net.NetworkCredential -ArgumentList '', (Read-Host -AsSecureString -Prompt "Secret shared with $Name")).Password
    if ($Known.Count -eq 0) {
        Set-VpnAuthType -Type ExternalRadius -RadiusServer $Name -SharedSecret $Secret -RadiusPort 1812 -MsgAuthenticator Enabled
    } else {
        Add-RemoteAccessRadius -Purpose Authentication -ServerName $Name -SharedSecret $Secret -Port 1812 -MsgAuthenticator Enabled
    }
}
`

// suite sets the cryptography. All values are of the table.
func (s *ServerSetup) suite(b *strings.Builder) {
	if s.Suite == nil {
		return
	}
	p := s.Suite.PowerShell()
	args := []string{"-CustomPolicy"}
	for i, v := range valuesOf(&p) {
		args = append(args, "-"+suiteFields[i].name+" "+*v)
	}
	b.WriteString(invokePS("Set-VpnServerConfiguration", append(args, "-SALifeTimeSeconds 28800", "-MMSALifeTimeSeconds 86400", "-SADataSizeForRenegotiationKilobytes 1024000", "-PassThru")...))
}

// setDWord sets a number in the registry, and makes its key if need be.
func setDWord(path, name string, value uint32) string {
	return fmt.Sprintf("if (-not (Test-Path -Path '%s')) { New-Item -Path '%s' -Force | Out-Null }\nNew-ItemProperty -Path '%s' -Name '%s' -PropertyType DWord -Value %d -Force | Out-Null\n", path, path, path, name, value)
}

// protocol sets who is let in.
func (s *ServerSetup) protocol(b *strings.Builder) {
	var args []string
	if len(s.UserMethods) > 0 {
		args = append(args, "-UserAuthProtocolAccepted "+strings.Join(s.UserMethods, ", "))
	}
	if s.Root != (Thumbprint{}) {
		args = append(args, "-RootCertificateNameToAccept (Get-Item -Path 'Cert:\\LocalMachine\\Root\\"+strings.ToUpper(hex.EncodeToString(s.Root[:]))+"')")
	}
	if len(s.EKUs) > 0 {
		args = append(args, "-CertificateEKUsToAccept "+quoteListPS(s.EKUs))
	}
	if len(args) > 0 {
		b.WriteString(invokePS("Set-VpnAuthProtocol", append(args, "-PassThru")...))
	}
}

func (s *ServerSetup) ports(b *strings.Builder) {
	var args []string
	if s.IKEv2Ports > 0 {
		args = append(args, fmt.Sprintf("-Ikev2Ports %d", s.IKEv2Ports))
	}
	if s.SSTPPorts > 0 {
		args = append(args, fmt.Sprintf("-SstpPorts %d", s.SSTPPorts))
	}
	if len(args) > 0 {
		b.WriteString(invokePS("Set-VpnServerConfiguration", append(args, "-PassThru")...))
	}
}

// offload has SSTP without TLS, or with it again.
func (s *ServerSetup) offload(b *strings.Builder) {
	if s.Offload == nil {
		return
	}
	if !s.Offload.Enabled {
		b.WriteString(setDWord(sstpParameters, "UseHttps", 1))
		fmt.Fprintf(b, "Remove-ItemProperty -Path '%s' -Name 'Sha256CertificateHash' -ErrorAction SilentlyContinue\n", sstpParameters)
		return
	}
	var hash []string
	for _, x := range s.Offload.Certificate {
		hash = append(hash, fmt.Sprintf("0x%02x", x))
	}
	b.WriteString(setDWord(sstpParameters, "UseHttps", 0))
	fmt.Fprintf(b, "New-ItemProperty -Path '%s' -Name 'Sha256CertificateHash' -PropertyType Binary -Value ([byte[]]@(%s)) -Force | Out-Null\n", sstpParameters, strings.Join(hash, ", "))
}
