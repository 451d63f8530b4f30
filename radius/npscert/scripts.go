package npscert

import (
	"cmp"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// thumbprint is a name that Windows gives, by SHA-1.
func thumbprint(c *x509.Certificate) [sha1.Size]byte { return sha1.Sum(c.Raw) }

// requestScript wants the cluster, the hosts, further names, the template, the
// friendly name and the length of the key.
const requestScript = `#Requires -RunAsAdministrator
# Asks AD CS for this NPS server's certificate. Run it on each server of the cluster.
$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest

$cluster  = %[1]s
$servers  = %[2]s
$more     = %[3]s
$template = %[4]s
$friendly = %[5]s
$bits     = %[6]d

$own = [System.Net.Dns]::GetHostEntry('').HostName
if ($servers -notcontains $own) {
    throw "This is $own, which isn't one of the servers of the cluster: $($servers -join ', ')"
}
$names = @(@($cluster, $own) + $more | Select-Object -Unique)

$answer = Get-Certificate -Template $template -SubjectName "CN=$cluster" -DnsName $names -CertStoreLocation 'Cert:\LocalMachine\My'
if ($answer.Status -ne 'Issued') {
    Write-Warning "The request is $($answer.Status). When a CA manager has approved it, run this on this server, then set its friendly name:"
    Write-Output  'Get-ChildItem Cert:\LocalMachine\Request | Get-Certificate'
    return
}
$cert = $answer.Certificate
(Get-Item "Cert:\LocalMachine\My\$($cert.Thumbprint)").FriendlyName = $friendly

# What Windows clients look at. It is checked here, since a template may overrule a request.
$faults = @()
if ($cert.Subject -notlike "*CN=$cluster*") { $faults += "the subject is '$($cert.Subject)' and not CN=$cluster" }
foreach ($n in $names) {
    if (@($cert.DnsNameList | ForEach-Object { $_.Unicode }) -notcontains $n) { $faults += "$n is not among its names" }
}
if (@($cert.EnhancedKeyUsageList | ForEach-Object { $_.ObjectId }) -notcontains '1.3.6.1.5.5.7.3.1') { $faults += 'it is not for server authentication' }
if ($cert.PublicKey.Key.KeySize -lt $bits) { $faults += "its key has $($cert.PublicKey.Key.KeySize) bits and not $bits" }
if ($cert.SignatureAlgorithm.FriendlyName -match 'md5|sha1') { $faults += "it is signed with $($cert.SignatureAlgorithm.FriendlyName)" }
if (-not $cert.HasPrivateKey) { $faults += 'it has no private key' }
foreach ($f in $faults) { Write-Warning $f }
if ($faults) { throw "The certificate $($cert.Thumbprint) was issued, but clients would not accept it." }

Write-Output "Issued: $($cert.Thumbprint), until $($cert.NotAfter)"
Write-Output 'Now choose it in the NPS console: Policies, Network Policies, the policy, Constraints,'
Write-Output "Authentication Methods, Microsoft: Protected EAP (PEAP), Edit, and take the one called '$friendly'."
Write-Output 'Do the same for Smart Card or other certificate, inside PEAP too. Then run: Restart-Service IAS'
`

// A Template is a certificate template for NPS servers at AD CS.
type Template struct {
	// Name is its name, without spaces; empty means DefaultTemplate.
	Name string
	// DisplayName is what people see; empty means "NPS cluster".
	DisplayName string
	// Group is the group whose members may enroll: the NPS servers' computer
	// accounts. It must be set: whoever may enroll can get a certificate in the
	// cluster's name.
	Group string
	// Bits is the least length of a key; 0 means DefaultBits.
	Bits int
	// NoApproval has certificates issued at once. Otherwise a CA manager
	// approves each one, since servers choose the names themselves.
	NoApproval bool
}

// PowerShell makes a script that adds the template and publishes it. It is run
// once, as a member of Enterprise Admins, on a CA of the enterprise.
func (t *Template) PowerShell() ([]byte, error) {
	name, display, bits := cmp.Or(t.Name, DefaultTemplate), cmp.Or(t.DisplayName, "NPS cluster"), cmp.Or(t.Bits, DefaultBits)
	errs := []error{templateName(name), text("the displayed name", display), text("the group", t.Group)}
	if bits < 2048 || bits > 8192 {
		errs = append(errs, fmt.Errorf("npscert: a key of %d bits: it must be 2048 to 8192", bits))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	const pendAll = 2 // CT_FLAG_PEND_ALL_REQUESTS (MS-CRTD §2.26)
	pend := pendAll
	if t.NoApproval {
		pend = 0
	}
	var b strings.Builder
	fmt.Fprintf(&b, templateScript, powershell(name), powershell(display), powershell(t.Group), bits, pend)
	return crlf(b.String()), nil
}

// templateScript wants the name, the displayed name, the group, the length of keys
// and the enrollment flag. What the attributes mean is in MS-CRTD.
const templateScript = `#Requires -RunAsAdministrator
#Requires -Modules ActiveDirectory
# Adds a certificate template for NPS servers to AD CS, and publishes it on this CA.
$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest

$name    = %[1]s
$display = %[2]s
$group   = %[3]s
$bits    = %[4]d
$flags   = %[5]d   # 2: a CA manager approves each request

$sid      = (Get-ADGroup -Identity $group).SID
$services = "CN=Public Key Services,CN=Services,$((Get-ADRootDSE).configurationNamingContext)"
$where    = "CN=Certificate Templates,$services"
if (Get-ADObject -SearchBase $where -Filter { cn -eq $name }) { throw "There is a template $name already." }

# A new OID below that of the forest.
$base = (Get-ADObject "CN=OID,$services" -Properties 'msPKI-Cert-Template-OID').'msPKI-Cert-Template-OID'
$part = { Get-Random -Minimum 1000000 -Maximum 99999999 }
$last = & $part
$oid  = "$base.$(& $part).$last"
New-ADObject -Path "CN=OID,$services" -Name "$last.$([guid]::NewGuid().ToString('N').ToUpper())" -Type 'msPKI-Enterprise-Oid' -OtherAttributes @{
    'DisplayName' = $display; 'flags' = 1; 'msPKI-Cert-Template-OID' = $oid
}

$serverAuth = '1.3.6.1.5.5.7.3.1'
New-ADObject -Path $where -Name $name -Type 'pKICertificateTemplate' -OtherAttributes @{
    'displayName'                          = $display
    'flags'                                = 131649          # a computer's; the request names the subject
    'revision'                             = 100
    'pKIDefaultKeySpec'                    = 1
    'pKIMaxIssuingDepth'                   = 0
    'pKICriticalExtensions'                = '2.5.29.15'
    'pKIKeyUsage'                          = [byte[]](0xA0, 0x00)
    'pKIExtendedKeyUsage'                  = $serverAuth
    'pKIExpirationPeriod'                  = [byte[]](0x00, 0x40, 0x39, 0x87, 0x2E, 0xE1, 0xFE, 0xFF)  # one year
    'pKIOverlapPeriod'                     = [byte[]](0x00, 0x80, 0xA6, 0x0A, 0xFF, 0xDE, 0xFF, 0xFF)  # six weeks
    'pKIDefaultCSPs'                       = '1,Microsoft RSA SChannel Cryptographic Provider'
    'msPKI-Template-Schema-Version'        = 2
    'msPKI-Template-Minor-Revision'        = 0
    'msPKI-Cert-Template-OID'              = $oid
    'msPKI-Certificate-Application-Policy' = $serverAuth
    'msPKI-Certificate-Name-Flag'          = 1               # the request names the subject
    'msPKI-Enrollment-Flag'                = $flags
    'msPKI-Minimal-Key-Size'               = $bits
    'msPKI-Private-Key-Flag'               = 0               # the key stays on the server
    'msPKI-RA-Signature'                   = 0
}

# The group, and nobody else beside the administrators, may enroll.
$path   = "AD:\CN=$name,$where"
$acl    = Get-Acl $path
$enroll = [guid]'0e10c968-78fb-11d2-90d4-00c04f79dc55'
$allow  = [System.Security.AccessControl.AccessControlType]::Allow
$acl.AddAccessRule((New-Object System.DirectoryServices.ActiveDirectoryAccessRule($sid, [System.DirectoryServices.ActiveDirectoryRights]::GenericRead, $allow)))
$acl.AddAccessRule((New-Object System.DirectoryServices.ActiveDirectoryAccessRule($sid, [System.DirectoryServices.ActiveDirectoryRights]::ExtendedRight, $allow, $enroll)))
Set-Acl -Path $path -AclObject $acl

Write-Output "Template $name is there, with OID $oid."
try {
    Add-CATemplate -Name $name -Force
    Write-Output 'This CA issues it.'
} catch {
    Write-Warning "It couldn't be published here ($($_.Exception.Message)). Run this on each CA that is to issue it, once the template is replicated:"
    Write-Output  "    Add-CATemplate -Name '$name' -Force"
}
Write-Output 'A server that was added to the group must be restarted, or its tickets renewed (klist -li 0x3e7 purge), before it may enroll.'
`
