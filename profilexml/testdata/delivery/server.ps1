# Sets up an RRAS gateway for Always On VPN. It must be run on it as an administrator.
$ErrorActionPreference = 'Stop'
Set-VpnServerConfiguration `
    -CustomPolicy `
    -AuthenticationTransformConstants GCMAES128 `
    -CipherTransformConstants GCMAES128 `
    -PfsGroup ECP256 `
    -DHGroup Group14 `
    -IntegrityCheckMethod SHA256 `
    -EncryptionMethod GCMAES128 `
    -SALifeTimeSeconds 28800 `
    -MMSALifeTimeSeconds 86400 `
    -SADataSizeForRenegotiationKilobytes 1024000 `
    -PassThru
if (-not (Test-Path -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RemoteAccess\Parameters\Ikev2')) { New-Item -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RemoteAccess\Parameters\Ikev2' -Force | Out-Null }
New-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RemoteAccess\Parameters\Ikev2' -Name 'EnableServerFragmentation' -PropertyType DWord -Value 1 -Force | Out-Null
if (-not (Test-Path -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RemoteAccess\Parameters\Ikev2')) { New-Item -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RemoteAccess\Parameters\Ikev2' -Force | Out-Null }
New-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RemoteAccess\Parameters\Ikev2' -Name 'CertAuthFlags' -PropertyType DWord -Value 4 -Force | Out-Null
if (-not (Test-Path -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\IKEEXT\Parameters')) { New-Item -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\IKEEXT\Parameters' -Force | Out-Null }
New-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\IKEEXT\Parameters' -Name 'IkeNumEstablishedForInitialQuery' -PropertyType DWord -Value 50000 -Force | Out-Null
$Netsh = Start-Process -FilePath 'netsh.exe' -ArgumentList 'ras set ikev2connection idletimeout=5 nwoutagetime=2' -NoNewWindow -Wait -PassThru
if ($Netsh.ExitCode -ne 0) { throw 'netsh has not set the times of IKEv2' }
Set-VpnAuthProtocol `
    -UserAuthProtocolAccepted EAP, Certificate `
    -RootCertificateNameToAccept (Get-Item -Path 'Cert:\LocalMachine\Root\0102030000000000000000000000000000000000') `
    -CertificateEKUsToAccept @('1.3.6.1.5.5.7.3.2') `
    -PassThru
Set-VpnServerConfiguration `
    -Ikev2Ports 500 `
    -SstpPorts 500 `
    -PassThru
if (-not (Test-Path -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters')) { New-Item -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters' -Force | Out-Null }
New-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters' -Name 'UseHttps' -PropertyType DWord -Value 0 -Force | Out-Null
New-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters' -Name 'Sha256CertificateHash' -PropertyType Binary -Value ([byte[]]@(0x01, 0x02, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00)) -Force | Out-Null
$RadiusServers = @('nps1.corp.example.com', '10.0.0.5')
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
Restart-Service -Name 'IKEEXT' -Force
# This ends all connections.
Restart-Service -Name RemoteAccess -Force -PassThru
