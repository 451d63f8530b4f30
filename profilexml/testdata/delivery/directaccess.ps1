$ErrorActionPreference = 'Stop'
Set-NetIsatapConfiguration -State Enabled -Router 'isatap.corp.example.com'
# A router of ISATAP loses these when it starts, so a task sets them again.
$Isatap = Get-NetIPInterface -AddressFamily IPv6 | Where-Object { $_.InterfaceAlias -like 'isatap*' } | Select-Object -First 1
Set-NetIPInterface -InterfaceIndex $Isatap.ifIndex -AddressFamily IPv6 -Forwarding Enabled -Advertising Enabled
if (-not (Get-NetRoute -AddressFamily IPv6 -DestinationPrefix '2001:db8:0:1::/64' -InterfaceIndex $Isatap.ifIndex -ErrorAction SilentlyContinue)) {
    New-NetRoute -AddressFamily IPv6 -DestinationPrefix '2001:db8:0:1::/64' -InterfaceIndex $Isatap.ifIndex -Publish Yes | Out-Null
}
$Action = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument '-NoProfile -NonInteractive -EncodedCommand JABJAHMAYQB0AGEAcAAgAD0AIABHAGUAdAAtAE4AZQB0AEkAUABJAG4AdABlAHIAZgBhAGMAZQAgAC0AQQBkAGQAcgBlAHMAcwBGAGEAbQBpAGwAeQAgAEkAUAB2ADYAIAB8ACAAVwBoAGUAcgBlAC0ATwBiAGoAZQBjAHQAIAB7ACAAJABfAC4ASQBuAHQAZQByAGYAYQBjAGUAQQBsAGkAYQBzACAALQBsAGkAawBlACAAJwBpAHMAYQB0AGEAcAAqACcAIAB9ACAAfAAgAFMAZQBsAGUAYwB0AC0ATwBiAGoAZQBjAHQAIAAtAEYAaQByAHMAdAAgADEACgBTAGUAdAAtAE4AZQB0AEkAUABJAG4AdABlAHIAZgBhAGMAZQAgAC0ASQBuAHQAZQByAGYAYQBjAGUASQBuAGQAZQB4ACAAJABJAHMAYQB0AGEAcAAuAGkAZgBJAG4AZABlAHgAIAAtAEEAZABkAHIAZQBzAHMARgBhAG0AaQBsAHkAIABJAFAAdgA2ACAALQBGAG8AcgB3AGEAcgBkAGkAbgBnACAARQBuAGEAYgBsAGUAZAAgAC0AQQBkAHYAZQByAHQAaQBzAGkAbgBnACAARQBuAGEAYgBsAGUAZAAKAGkAZgAgACgALQBuAG8AdAAgACgARwBlAHQALQBOAGUAdABSAG8AdQB0AGUAIAAtAEEAZABkAHIAZQBzAHMARgBhAG0AaQBsAHkAIABJAFAAdgA2ACAALQBEAGUAcwB0AGkAbgBhAHQAaQBvAG4AUAByAGUAZgBpAHgAIAAnADIAMAAwADEAOgBkAGIAOAA6ADAAOgAxADoAOgAvADYANAAnACAALQBJAG4AdABlAHIAZgBhAGMAZQBJAG4AZABlAHgAIAAkAEkAcwBhAHQAYQBwAC4AaQBmAEkAbgBkAGUAeAAgAC0ARQByAHIAbwByAEEAYwB0AGkAbwBuACAAUwBpAGwAZQBuAHQAbAB5AEMAbwBuAHQAaQBuAHUAZQApACkAIAB7AAoAIAAgACAAIABOAGUAdwAtAE4AZQB0AFIAbwB1AHQAZQAgAC0AQQBkAGQAcgBlAHMAcwBGAGEAbQBpAGwAeQAgAEkAUAB2ADYAIAAtAEQAZQBzAHQAaQBuAGEAdABpAG8AbgBQAHIAZQBmAGkAeAAgACcAMgAwADAAMQA6AGQAYgA4ADoAMAA6ADEAOgA6AC8ANgA0ACcAIAAtAEkAbgB0AGUAcgBmAGEAYwBlAEkAbgBkAGUAeAAgACQASQBzAGEAdABhAHAALgBpAGYASQBuAGQAZQB4ACAALQBQAHUAYgBsAGkAcwBoACAAWQBlAHMAIAB8ACAATwB1AHQALQBOAHUAbABsAAoAfQAKAA=='
Register-ScheduledTask -TaskName 'aovlb ISATAP router' -Action $Action -Trigger (New-ScheduledTaskTrigger -AtStartup) -Principal (New-ScheduledTaskPrincipal -UserId 'S-1-5-18' -LogonType ServiceAccount -RunLevel Highest) -Force | Out-Null
Set-DANetworkLocationServer -Url 'https://nls.corp.example.com/' -CheckReachability
Set-NCSIPolicyConfiguration `
    -DomainLocationDeterminationURL 'https://nls.corp.example.com/' `
    -CorporateWebsiteProbeURL 'http://probe.corp.example.com/' `
    -CorporateDNSProbeHostName 'probe.corp.example.com' `
    -CorporateDNSProbeHostAddress '::1' `
    -CorporateSitePrefixList '2001:db8::/48'
Set-DAClientExperienceConfiguration `
    -PolicyStore 'corp.example.com\DirectAccess Client Settings' `
    -CorporateResources @('HTTP:https://inside.example.com/it''s', 'PING:10.0.0.1') `
    -FriendlyName ('B' + [char]0x00FC + 'ro') `
    -SupportEmail 'help@example.com' `
    -PreferLocalNamesAllowed $false `
    -ForceTunneling Disabled `
    -ManualEntryPointSelectionAllowed $true `
    -GslbFqdn 'da.example.com'
if (-not (Get-DAEntryPointTableItem -PolicyStore 'corp.example.com\DirectAccess Client Settings' -EntryPointName ('K' + [char]0x00F6 + 'ln') -ErrorAction SilentlyContinue)) {
New-DAEntryPointTableItem `
    -PolicyStore 'corp.example.com\DirectAccess Client Settings' `
    -EntryPointName ('K' + [char]0x00F6 + 'ln') `
    -ADSite ('It''s K' + [char]0x00F6 + 'ln') `
    -EntryPointRange '2001:db8:0:1::/64' `
    -EntryPointIPAddress '2001:db8::1' `
    -GslbIP '192.0.2.1'
}
if (-not (Get-DAEntryPointTableItem -PolicyStore 'corp.example.com\DirectAccess Client Settings' -EntryPointName 'Paris' -ErrorAction SilentlyContinue)) {
New-DAEntryPointTableItem `
    -PolicyStore 'corp.example.com\DirectAccess Client Settings' `
    -EntryPointName 'Paris' `
    -ADSite 'Paris' `
    -EntryPointRange '2001:db8:0:2::/64' `
    -EntryPointIPAddress '2001:db8::2'
}
$RenewDays = 60

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
