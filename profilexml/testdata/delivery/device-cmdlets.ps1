# Makes a VPN connection with the commands of Windows, in place of one of the same name.
# It must be run as an administrator.
# Not to be had this way: DisableClassBasedDefaultRoute: set it in the phone book, with aovlb rasphone set
# Not to be had this way: AlwaysOn: the connection isn't made by itself, but for its triggers
# Not to be had this way: DeviceTunnel: the connection is one of all users, made by them
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$ProfileName = 'Device Tunnel'

if (Get-VpnConnection -Name $ProfileName -AllUserConnection -ErrorAction SilentlyContinue) {
    Remove-VpnConnection -Name $ProfileName -AllUserConnection -Force
}
Add-VpnConnection `
    -Name $ProfileName `
    -ServerAddress 'vpn.example.com' `
    -TunnelType Ikev2 `
    -AuthenticationMethod MachineCertificate `
    -EncryptionLevel Required `
    -SplitTunneling `
    -AllUserConnection `
    -Force
Set-VpnConnectionIPsecConfiguration `
    -ConnectionName $ProfileName `
    -AuthenticationTransformConstants 'GCMAES128' `
    -CipherTransformConstants 'GCMAES128' `
    -PfsGroup 'ECP256' `
    -DHGroup 'Group14' `
    -IntegrityCheckMethod 'SHA256' `
    -EncryptionMethod 'GCMAES128' `
    -AllUserConnection `
    -Force
Add-VpnConnectionRoute -ConnectionName $ProfileName -DestinationPrefix '10.0.0.10/32' -RouteMetric 1 -AllUserConnection
