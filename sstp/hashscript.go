package sstp

import (
	"fmt"
	"strings"
	"unicode/utf16"
)

// registryKey is where RRAS keeps what it knows of its certificate.
const registryKey = `SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters`

// A HashChange is what a gateway's registry must say so that RRAS takes sessions
// of clients that see a certificate elsewhere: at a balancer.
type HashChange struct {
	// SHA256 is the certificate's hash. It is needed.
	SHA256 Fingerprint
	// SHA1 is set too if it isn't zero, for clients of before Windows 8.
	// Otherwise a SHA-1 hash that is there is removed, as RRAS would go on
	// accepting it.
	SHA1 FingerprintSHA1
	// PlainHTTP says that the balancer ends TLS (offload): UseHttps becomes 0,
	// and RRAS listens at port 80. Otherwise UseHttps isn't touched.
	PlainHTTP bool
	// Restart has RemoteAccess restarted, without which nothing counts. It ends
	// all tunnels of the gateway, those of IKEv2 too: drain it first.
	Restart bool
	// Gateways are the computers to change by PowerShell remoting; none means
	// the one that the script runs on.
	Gateways []string
}

// Reg returns a .reg file for regedit, in UTF-16 as Windows writes them. It can't
// verify or restart anything; PowerShell can.
func (h *HashChange) Reg() []byte {
	var b strings.Builder
	b.WriteString("Windows Registry Editor Version 5.00\r\n\r\n")
	b.WriteString(`[HKEY_LOCAL_MACHINE\` + registryKey + "]\r\n")
	if h.PlainHTTP {
		b.WriteString("\"UseHttps\"=dword:00000000\r\n")
	}
	b.WriteString("\"isHashConfiguredByAdmin\"=dword:00000001\r\n")
	b.WriteString("\"SHA256CertificateHash\"=" + regBinary(h.SHA256[:]) + "\r\n")
	if h.SHA1.IsZero() {
		b.WriteString("\"SHA1CertificateHash\"=-\r\n")
	} else {
		b.WriteString("\"SHA1CertificateHash\"=" + regBinary(h.SHA1[:]) + "\r\n")
	}
	b.WriteString("\r\n")
	out := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(b.String())) {
		out = append(out, byte(u), byte(u>>8))
	}
	return out
}

// regBinary writes bytes as a .reg file has them, in lines of at most 80
// characters.
func regBinary(p []byte) string {
	const perLine = 16
	var b strings.Builder
	b.WriteString("hex:")
	for i, c := range p {
		switch {
		case i > 0 && i%perLine == 0:
			b.WriteString(",\\\r\n  ")
		case i > 0:
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%02x", c)
	}
	return b.String()
}

// PowerShell returns a script that makes the change on each gateway. It checks
// before it writes, restores all that was there if anything fails, reads back what
// it wrote, restarts the service as often as it takes, and waits until the service
// accepts connections. Its last line for each gateway is
//
//	aovlb: COMPUTER sstp hash 0123…
//
// so that a program can tell that it has worked. It runs in Windows PowerShell 5.1
// and PowerShell 7, and needs no module.
func (h *HashChange) PowerShell() string {
	r := strings.NewReplacer(
		"@SHA256@", h.SHA256.String(),
		"@SHA1@", sha1Text(h.SHA1),
		"@PLAIN@", psBool(h.PlainHTTP),
		"@RESTART@", psBool(h.Restart),
		"@KEY@", registryKey,
	)
	script := r.Replace(setScript)
	if len(h.Gateways) == 0 {
		return crlf("$ErrorActionPreference = 'Stop'\n$change = {\n" + script + "}\n& $change\n")
	}
	quoted := make([]string, len(h.Gateways))
	for i, g := range h.Gateways {
		quoted[i] = psQuote(g)
	}
	return crlf("$ErrorActionPreference = 'Stop'\n$change = {\n" + script + "}\n" +
		"# One after the other, and none after one that failed: its clients still have the others.\n" +
		"foreach ($gateway in @(" + strings.Join(quoted, ", ") + ")) {\n" +
		"    Invoke-Command -ComputerName $gateway -ScriptBlock $change\n}\n")
}

// ReadHashPowerShell returns a script that prints what RRAS on a gateway is
// configured with, as 64 hexadecimal digits, and nothing if there is no hash. An
// empty gateway means the computer that it runs on.
func ReadHashPowerShell(gateway string) string {
	script := strings.ReplaceAll(readScript, "@KEY@", registryKey)
	if gateway == "" {
		return crlf("& {\n" + script + "}\n")
	}
	return crlf("Invoke-Command -ComputerName " + psQuote(gateway) + " -ScriptBlock {\n" + script + "}\n")
}

func psQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func psBool(b bool) string {
	if b {
		return "$true"
	}
	return "$false"
}

func sha1Text(f FingerprintSHA1) string {
	if f.IsZero() {
		return ""
	}
	return f.String()
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// setScript has two halves: what is in the registry changes wholly or not at all,
// then the service is restarted, which can be repeated.
const setScript = `    $ErrorActionPreference = 'Stop'
    $path = 'HKLM:\@KEY@'
    $sha256 = '@SHA256@'
    $sha1 = '@SHA1@'
    $plain = @PLAIN@
    function Bytes([string]$hex) {
        $b = New-Object byte[] ($hex.Length / 2)
        for ($i = 0; $i -lt $b.Length; $i++) { $b[$i] = [Convert]::ToByte($hex.Substring(2 * $i, 2), 16) }
        , $b
    }
    function Hex($b) { if ($null -eq $b) { '' } else { -join ($b | ForEach-Object { $_.ToString('x2') }) } }
    $me = New-Object Security.Principal.WindowsPrincipal ([Security.Principal.WindowsIdentity]::GetCurrent())
    if (-not $me.IsInRole([Security.Principal.WindowsBuiltInRole]::Administrator)) { throw 'this must run as an administrator' }
    if (-not (Test-Path $path)) { throw "$env:COMPUTERNAME has no SSTP service: is the Remote Access role installed?" }

    $names = 'UseHttps', 'isHashConfiguredByAdmin', 'SHA256CertificateHash', 'SHA1CertificateHash'
    $key = Get-Item $path
    $before = @{}
    foreach ($n in $names) {
        if ($key.GetValueNames() -contains $n) { $before[$n] = @($key.GetValue($n), $key.GetValueKind($n)) }
    }
    try {
        if ($plain) { New-ItemProperty $path -Name UseHttps -PropertyType DWord -Value 0 -Force | Out-Null }
        New-ItemProperty $path -Name SHA256CertificateHash -PropertyType Binary -Value (Bytes $sha256) -Force | Out-Null
        if ($sha1) {
            New-ItemProperty $path -Name SHA1CertificateHash -PropertyType Binary -Value (Bytes $sha1) -Force | Out-Null
        } elseif ($before.ContainsKey('SHA1CertificateHash')) {
            Remove-ItemProperty $path -Name SHA1CertificateHash
        }
        New-ItemProperty $path -Name isHashConfiguredByAdmin -PropertyType DWord -Value 1 -Force | Out-Null

        $key = Get-Item $path
        if ((Hex $key.GetValue('SHA256CertificateHash')) -ne $sha256) { throw 'SHA256CertificateHash reads back as something else' }
        if ((Hex $key.GetValue('SHA1CertificateHash')) -ne $sha1) { throw 'SHA1CertificateHash reads back as something else' }
        if ($key.GetValue('isHashConfiguredByAdmin') -ne 1) { throw 'isHashConfiguredByAdmin reads back as something else' }
        if ($plain -and $key.GetValue('UseHttps') -ne 0) { throw 'UseHttps reads back as something else' }
    } catch {
        $why = $_
        foreach ($n in $names) {
            if ($before.ContainsKey($n)) {
                New-ItemProperty $path -Name $n -PropertyType $before[$n][1] -Value $before[$n][0] -Force | Out-Null
            } else {
                Remove-ItemProperty $path -Name $n -ErrorAction SilentlyContinue
            }
        }
        throw "nothing was changed on ${env:COMPUTERNAME}: $why"
    }

    if (@RESTART@) {
        for ($try = 1; ; $try++) {
            try { Restart-Service RemoteAccess -Force; break } catch {
                if ($try -ge 3) { throw "the hash is set, but RemoteAccess does not restart on ${env:COMPUTERNAME} (a reboot may help): $_" }
                Start-Sleep -Seconds 10
            }
        }
        (Get-Service RemoteAccess).WaitForStatus('Running', [TimeSpan]::FromMinutes(2))
        $key = Get-Item $path
        $port = $key.GetValue('ListenerPort')
        if (-not $port) { if ($key.GetValue('UseHttps') -eq 0) { $port = 80 } else { $port = 443 } }
        $until = (Get-Date).AddMinutes(2)
        while (-not (Get-NetTCPConnection -State Listen -LocalPort $port -ErrorAction SilentlyContinue)) {
            if ((Get-Date) -gt $until) { throw "RemoteAccess runs on $env:COMPUTERNAME, but nothing listens at port $port" }
            Start-Sleep -Seconds 1
        }
    }
    "aovlb: $env:COMPUTERNAME sstp hash $sha256"
`

const readScript = `    $key = Get-Item 'HKLM:\@KEY@'
    if ($key.GetValue('isHashConfiguredByAdmin') -eq 1) {
        -join ($key.GetValue('SHA256CertificateHash') | ForEach-Object { $_.ToString('x2') })
    }
`
