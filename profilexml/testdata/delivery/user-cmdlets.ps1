# Makes a VPN connection with the commands of Windows, in place of one of the same name.
# It must be run as the user.
# Not to be had this way: DnsSuffix beyond the first
# Not to be had this way: the exclusion of 10.9.0.0/16
# Not to be had this way: DisableClassBasedDefaultRoute: set it in the phone book, with aovlb rasphone set
# Not to be had this way: AlwaysOn: the connection isn't made by itself, but for its triggers
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$ProfileName = 'Always On VPN'
$Eap = New-Object -TypeName Xml.XmlDocument
$Eap.XmlResolver = $null
$Eap.LoadXml(@'
<EapHostConfig xmlns="http://www.microsoft.com/provisioning/EapHostConfig"><EapMethod><Type xmlns="http://www.microsoft.com/provisioning/EapCommon">25</Type><VendorId xmlns="http://www.microsoft.com/provisioning/EapCommon">0</VendorId><VendorType xmlns="http://www.microsoft.com/provisioning/EapCommon">0</VendorType><AuthorId xmlns="http://www.microsoft.com/provisioning/EapCommon">0</AuthorId></EapMethod><Config xmlns="http://www.microsoft.com/provisioning/EapHostConfig"><Eap xmlns="http://www.microsoft.com/provisioning/BaseEapConnectionPropertiesV1"><Type>25</Type><EapType xmlns="http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV1"><ServerValidation><DisableUserPromptForServerValidation>true</DisableUserPromptForServerValidation><ServerNames>nps.corp.example.com</ServerNames><TrustedRootCA>01 23 45 67 89 ab cd ef 01 23 45 67 89 ab cd ef 01 23 45 67 </TrustedRootCA></ServerValidation><FastReconnect>true</FastReconnect><InnerEapOptional>false</InnerEapOptional><Eap xmlns="http://www.microsoft.com/provisioning/BaseEapConnectionPropertiesV1"><Type>13</Type><EapType xmlns="http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV1"><CredentialsSource><CertificateStore><SimpleCertSelection>true</SimpleCertSelection></CertificateStore></CredentialsSource><ServerValidation><DisableUserPromptForServerValidation>true</DisableUserPromptForServerValidation><ServerNames>nps.corp.example.com</ServerNames><TrustedRootCA>01 23 45 67 89 ab cd ef 01 23 45 67 89 ab cd ef 01 23 45 67 </TrustedRootCA></ServerValidation><DifferentUsername>false</DifferentUsername><PerformServerValidation xmlns="http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV2">true</PerformServerValidation><AcceptServerName xmlns="http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV2">true</AcceptServerName></EapType></Eap><EnableQuarantineChecks>false</EnableQuarantineChecks><RequireCryptoBinding>true</RequireCryptoBinding><PeapExtensions><PerformServerValidation xmlns="http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV2">true</PerformServerValidation><AcceptServerName xmlns="http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV2">true</AcceptServerName></PeapExtensions></EapType></Eap></Config></EapHostConfig>
'@)

if (Get-VpnConnection -Name $ProfileName -ErrorAction SilentlyContinue) {
    Remove-VpnConnection -Name $ProfileName -Force
}
Add-VpnConnection `
    -Name $ProfileName `
    -ServerAddress 'vpn.example.com' `
    -TunnelType Ikev2 `
    -ServerList @((New-VpnServerAddress -ServerAddress 'vpn.example.com' -FriendlyName 'vpn.example.com'), (New-VpnServerAddress -ServerAddress 'vpn2.example.com' -FriendlyName 'vpn2.example.com')) `
    -AuthenticationMethod Eap `
    -EapConfigXmlStream $Eap `
    -EncryptionLevel Required `
    -SplitTunneling `
    -DnsSuffix 'corp.example.com' `
    -Force
Set-VpnConnectionIPsecConfiguration `
    -ConnectionName $ProfileName `
    -AuthenticationTransformConstants 'GCMAES128' `
    -CipherTransformConstants 'GCMAES128' `
    -PfsGroup 'ECP256' `
    -DHGroup 'Group14' `
    -IntegrityCheckMethod 'SHA256' `
    -EncryptionMethod 'GCMAES128' `
    -Force
Add-VpnConnectionRoute -ConnectionName $ProfileName -DestinationPrefix '10.0.0.0/8' -RouteMetric 1
Add-VpnConnectionTriggerDnsConfiguration -Name $ProfileName -DnsSuffix '.corp.example.com' -DnsIPAddress @('10.0.0.53', '10.0.1.53') -Force
Add-VpnConnectionTriggerTrustedNetwork -Name $ProfileName -DnsSuffix @('corp.example.com') -Force
Set-VpnConnectionProxy -Name $ProfileName -AutoConfigurationScript ('http://wpad/b' + [char]0x00FC + 'cher.pac?a=1&b=''2''')
