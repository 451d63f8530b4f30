# Makes a VPN connection with the commands of Windows, in place of one of the same name.
# It must be run as an administrator.
# Not to be had this way: DisableClassBasedDefaultRoute: set it in the phone book, with aovlb rasphone set
# Not to be had this way: AlwaysOn: the connection isn't made by itself, but for its triggers
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$ProfileName = 'It''s (all) $users'
$Eap = New-Object -TypeName Xml.XmlDocument
$Eap.XmlResolver = $null
$Eap.LoadXml(@'
<EapHostConfig xmlns="http://www.microsoft.com/provisioning/EapHostConfig"><EapMethod><Type xmlns="http://www.microsoft.com/provisioning/EapCommon">25</Type><VendorId xmlns="http://www.microsoft.com/provisioning/EapCommon">0</VendorId><VendorType xmlns="http://www.microsoft.com/provisioning/EapCommon">0</VendorType><AuthorId xmlns="http://www.microsoft.com/provisioning/EapCommon">0</AuthorId></EapMethod><Config xmlns="http://www.microsoft.com/provisioning/EapHostConfig"><Eap xmlns="http://www.microsoft.com/provisioning/BaseEapConnectionPropertiesV1"><Type>25</Type><EapType xmlns="http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV1"><ServerValidation><DisableUserPromptForServerValidation>true</DisableUserPromptForServerValidation><ServerNames>nps.corp.example.com</ServerNames><TrustedRootCA>01 23 45 67 89 ab cd ef 01 23 45 67 89 ab cd ef 01 23 45 67 </TrustedRootCA></ServerValidation><FastReconnect>true</FastReconnect><InnerEapOptional>false</InnerEapOptional><Eap xmlns="http://www.microsoft.com/provisioning/BaseEapConnectionPropertiesV1"><Type>13</Type><EapType xmlns="http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV1"><CredentialsSource><CertificateStore><SimpleCertSelection>true</SimpleCertSelection></CertificateStore></CredentialsSource><ServerValidation><DisableUserPromptForServerValidation>true</DisableUserPromptForServerValidation><ServerNames>nps.corp.example.com</ServerNames><TrustedRootCA>01 23 45 67 89 ab cd ef 01 23 45 67 89 ab cd ef 01 23 45 67 </TrustedRootCA></ServerValidation><DifferentUsername>false</DifferentUsername><PerformServerValidation xmlns="http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV2">true</PerformServerValidation><AcceptServerName xmlns="http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV2">true</AcceptServerName></EapType></Eap><EnableQuarantineChecks>false</EnableQuarantineChecks><RequireCryptoBinding>true</RequireCryptoBinding><PeapExtensions><PerformServerValidation xmlns="http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV2">true</PerformServerValidation><AcceptServerName xmlns="http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV2">true</AcceptServerName></PeapExtensions></EapType></Eap></Config></EapHostConfig>
'@)

if (Get-VpnConnection -Name $ProfileName -AllUserConnection -ErrorAction SilentlyContinue) {
    Remove-VpnConnection -Name $ProfileName -AllUserConnection -Force
}
Add-VpnConnection `
    -Name $ProfileName `
    -ServerAddress 'vpn.example.com' `
    -TunnelType Sstp `
    -AuthenticationMethod Eap `
    -EapConfigXmlStream $Eap `
    -EncryptionLevel Required `
    -SplitTunneling `
    -AllUserConnection `
    -Force
Add-VpnConnectionRoute -ConnectionName $ProfileName -DestinationPrefix '2001:db8::/32' -RouteMetric 1 -AllUserConnection
