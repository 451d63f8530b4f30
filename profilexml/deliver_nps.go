package profilexml

import (
	"errors"
	"strings"
)

// eapTLSParameters is where NPS and RRAS read how EAP-TLS is checked.
const eapTLSParameters = `HKLM:\SYSTEM\CurrentControlSet\Services\RasMan\PPP\EAP\13`

// An NPSSetup is what NPS servers need so that users with a profile get in.
type NPSSetup struct {
	// MessageAuthenticator has NPS demand a Message-Authenticator of all its
	// clients, and limit what of Proxy-State it takes without one
	// (CVE-2024-3596). Gateways and balancers must send it, or nobody gets in.
	MessageAuthenticator bool
	// IgnoreNoRevocation has EAP-TLS take certificates whose revocation can't be
	// checked, because they don't say where their list is: the short-lived ones of
	// conditional access by Entra ID (IgnoreNoRevocationCheck).
	IgnoreNoRevocation bool
}

// Script returns the PowerShell for an NPS server, to be run there as an
// administrator. It may be run again.
func (s *NPSSetup) Script() (string, error) {
	if *s == (NPSSetup{}) {
		return "", errors.New("there is nothing to be set on an NPS server")
	}
	var b strings.Builder
	b.WriteString(commentPS("Sets up an NPS server for Always On VPN. It must be run on it as an administrator.") + "$ErrorActionPreference = 'Stop'\n")
	if s.MessageAuthenticator {
		for _, what := range []string{"limitproxystate", "requiremsgauth"} {
			b.WriteString("$Netsh = Start-Process -FilePath 'netsh.exe' -ArgumentList 'nps set " + what + " all=enable' -NoNewWindow -Wait -PassThru\n" +
				"if ($Netsh.ExitCode -ne 0) { throw 'netsh has not set " + what + ", which needs the updates of July 2024' }\n")
		}
	}
	if s.IgnoreNoRevocation {
		b.WriteString(setDWord(eapTLSParameters, "IgnoreNoRevocationCheck", 1))
	}
	b.WriteString("# NPS reads them when it starts. Logins that are under way are asked for again.\nRestart-Service -Name 'IAS' -Force\n")
	return b.String(), nil
}
