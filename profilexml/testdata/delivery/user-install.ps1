# Makes a VPN connection. It does nothing if the connection is as it should be.
# It must be run as SYSTEM, or as the user with administrator's rights.
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$ProfileName = 'Always On VPN'
$InstanceId = 'Always%20On%20VPN'
$ProfileHash = '4d8227f1f7a6ee2a5bbc85612c0a2ee7fb4b5c330ecbb6c9cdd8b6bb27241d1c'
$AllUsers = $false
$DeviceTunnel = $false
$KeepStrategy = $false
$ProfileXml = @'
<VPNProfile><AlwaysOn>true</AlwaysOn><DnsSuffix>corp.example.com,b&amp;b.example</DnsSuffix><TrustedNetworkDetection>corp.example.com</TrustedNetworkDetection><Proxy><AutoConfigUrl>http://wpad/b&#252;cher.pac?a=1&amp;b='2'</AutoConfigUrl></Proxy><NativeProfile><Servers>vpn.example.com;vpn.example.com,vpn2.example.com;vpn2.example.com</Servers><RoutingPolicyType>SplitTunnel</RoutingPolicyType><NativeProtocolType>IKEv2</NativeProtocolType><Authentication><UserMethod>Eap</UserMethod><MachineMethod>Eap</MachineMethod><Eap><Configuration><EapHostConfig xmlns="http://www.microsoft.com/provisioning/EapHostConfig"><EapMethod><Type xmlns="http://www.microsoft.com/provisioning/EapCommon">25</Type><VendorId xmlns="http://www.microsoft.com/provisioning/EapCommon">0</VendorId><VendorType xmlns="http://www.microsoft.com/provisioning/EapCommon">0</VendorType><AuthorId xmlns="http://www.microsoft.com/provisioning/EapCommon">0</AuthorId></EapMethod><Config xmlns="http://www.microsoft.com/provisioning/EapHostConfig"><Eap xmlns="http://www.microsoft.com/provisioning/BaseEapConnectionPropertiesV1"><Type>25</Type><EapType xmlns="http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV1"><ServerValidation><DisableUserPromptForServerValidation>true</DisableUserPromptForServerValidation><ServerNames>nps.corp.example.com</ServerNames><TrustedRootCA>01 23 45 67 89 ab cd ef 01 23 45 67 89 ab cd ef 01 23 45 67 </TrustedRootCA></ServerValidation><FastReconnect>true</FastReconnect><InnerEapOptional>false</InnerEapOptional><Eap xmlns="http://www.microsoft.com/provisioning/BaseEapConnectionPropertiesV1"><Type>13</Type><EapType xmlns="http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV1"><CredentialsSource><CertificateStore><SimpleCertSelection>true</SimpleCertSelection></CertificateStore></CredentialsSource><ServerValidation><DisableUserPromptForServerValidation>true</DisableUserPromptForServerValidation><ServerNames>nps.corp.example.com</ServerNames><TrustedRootCA>01 23 45 67 89 ab cd ef 01 23 45 67 89 ab cd ef 01 23 45 67 </TrustedRootCA></ServerValidation><DifferentUsername>false</DifferentUsername><PerformServerValidation xmlns="http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV2">true</PerformServerValidation><AcceptServerName xmlns="http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV2">true</AcceptServerName></EapType></Eap><EnableQuarantineChecks>false</EnableQuarantineChecks><RequireCryptoBinding>true</RequireCryptoBinding><PeapExtensions><PerformServerValidation xmlns="http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV2">true</PerformServerValidation><AcceptServerName xmlns="http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV2">true</AcceptServerName></PeapExtensions></EapType></Eap></Config></EapHostConfig></Configuration></Eap></Authentication><CryptographySuite><AuthenticationTransformConstants>GCMAES128</AuthenticationTransformConstants><CipherTransformConstants>GCMAES128</CipherTransformConstants><PfsGroup>ECP256</PfsGroup><DHGroup>Group14</DHGroup><IntegrityCheckMethod>SHA256</IntegrityCheckMethod><EncryptionMethod>AES_GCM_128</EncryptionMethod></CryptographySuite><DisableClassBasedDefaultRoute>true</DisableClassBasedDefaultRoute></NativeProfile><Route><Address>10.0.0.0</Address><PrefixSize>8</PrefixSize><Metric>1</Metric></Route><Route><Address>10.9.0.0</Address><PrefixSize>16</PrefixSize><ExclusionRoute>true</ExclusionRoute><Metric>1</Metric></Route><DomainNameInformation><DomainName>.corp.example.com</DomainName><DnsServers>10.0.0.53,10.0.1.53</DnsServers></DomainNameInformation></VPNProfile>
'@

$Namespace = 'root\cimv2\mdm\dmmap'
$ClassName = 'MDM_VPNv2_01'
$ParentId = './Vendor/MSFT/VPNv2'
$SystemSid = 'S-1-5-18'

$OwnSid = [Security.Principal.WindowsIdentity]::GetCurrent().User.Value
$Sid = $OwnSid
if ($AllUsers -and $OwnSid -ne $SystemSid) {
    Write-Output 'This connection is the computer''s: run the script as SYSTEM.'
    exit 1
}
if (-not $AllUsers -and $OwnSid -eq $SystemSid) {
    # Who is logged on, by remote desktop too, is who has a shell.
    $Sids = @(Get-CimInstance -ClassName 'Win32_Process' -Filter 'Name = "explorer.exe"' |
        ForEach-Object { (Invoke-CimMethod -InputObject $_ -MethodName 'GetOwnerSid').Sid } | Sort-Object -Unique)
    if ($Sids.Count -ne 1) {
        Write-Output "There must be one user who is logged on, and there are $($Sids.Count)."
        exit 1
    }
    $Sid = $Sids[0]
}
# Where this script notes what it made. The user's key is only found under its SID.
if ($AllUsers) { $NoteKey = 'Registry::HKEY_LOCAL_MACHINE\SOFTWARE\aovlb\Profiles' } else { $NoteKey = "Registry::HKEY_USERS\$Sid\SOFTWARE\aovlb\Profiles" }

$Session = New-CimSession
$Options = New-Object -TypeName Microsoft.Management.Infrastructure.Options.CimOperationOptions
if (-not $AllUsers) {
    $Options.SetCustomOption('PolicyPlatformContext_PrincipalContext_Type', 'PolicyPlatform_UserContext', $false)
    $Options.SetCustomOption('PolicyPlatformContext_PrincipalContext_Id', $Sid, $false)
}

function Get-BridgeInstance {
    # Some releases of Windows 11 can't list instances; then there is none to be had.
    try {
        foreach ($Instance in $Session.EnumerateInstances($Namespace, $ClassName, $Options)) {
            if ($Instance.InstanceID -eq $InstanceId) { return $Instance }
        }
    } catch {
        Write-Verbose "Instances can't be listed: $_"
    }
    return $null
}

function Get-TextHash([string]$Text) {
    $Sha = [Security.Cryptography.SHA256]::Create()
    $Bytes = $Sha.ComputeHash([Text.Encoding]::UTF8.GetBytes($Text))
    return ([BitConverter]::ToString($Bytes) -replace '-', '').ToLowerInvariant()
}

function Get-Note {
    $Key = Get-Item -Path $NoteKey -ErrorAction SilentlyContinue
    if ($null -eq $Key) { return '' }
    return [string]$Key.GetValue($ProfileName, '')
}

function Set-Note([string]$Text) {
    if (-not (Test-Path -Path $NoteKey)) { New-Item -Path $NoteKey -Force | Out-Null }
    New-ItemProperty -Path $NoteKey -Name $ProfileName -PropertyType String -Value ($ProfileHash + ' ' + $Text) -Force | Out-Null
}

function Test-Present {
    return $null -ne (Get-VpnConnection -Name $ProfileName -AllUserConnection:$AllUsers -ErrorAction SilentlyContinue)
}

# What is wrong with the connection, or nothing.
function Get-Fault {
    $Instance = Get-BridgeInstance
    if ($null -eq $Instance) {
        if ((Get-Note) -eq ($ProfileHash + ' unread') -and (Test-Present)) { return '' }
        return 'there is no such connection'
    }
    $Expected = $ProfileHash + ' ' + (Get-TextHash $Instance.ProfileXML)
    if ((Get-Note) -ne $Expected) { return 'it is not of this profile, or was changed' }
    return ''
}

function Remove-NamedItems([string]$Path, [string]$Value) {
    foreach ($Key in @(Get-ChildItem -Path $Path -ErrorAction SilentlyContinue)) {
        if ($Key.GetValue($Value, '') -eq $ProfileName) { Remove-Item -Path $Key.PSPath -Recurse -Force }
    }
}

# Windows counts what MDM made, and makes nothing anew that is counted already.
function Remove-Tracked {
    $Tail = '/Vendor/MSFT/VPNv2/' + $InstanceId
    $Root = 'HKLM:\SOFTWARE\Microsoft\EnterpriseResourceManager\Tracked'
    foreach ($Key in @(Get-ChildItem -Path $Root -Recurse -ErrorAction SilentlyContinue)) {
        foreach ($Name in @($Key.GetValueNames())) {
            $Path = [string]$Key.GetValue($Name, '')
            if ($Name -notmatch '^Path[0-9]+$' -or -not $Path.EndsWith($Tail, [StringComparison]::OrdinalIgnoreCase)) { continue }
            Remove-ItemProperty -Path $Key.PSPath -Name $Name
            $Count = $Key.GetValue('Count', $null)
            if ($null -ne $Count -and $Count -gt 0) { Set-ItemProperty -Path $Key.PSPath -Name 'Count' -Value ($Count - 1) }
        }
    }
}

function Remove-AutoTrigger {
    $Path = 'HKLM:\SYSTEM\CurrentControlSet\Services\RasMan\Config'
    $Key = Get-Item -Path $Path -ErrorAction SilentlyContinue
    if ($null -ne $Key) {
        $Disabled = @($Key.GetValue('AutoTriggerDisabledProfilesList', @()))
        if ($Disabled -contains $ProfileName) {
            $Rest = [string[]]@($Disabled | Where-Object { $_ -ne $ProfileName })
            Set-ItemProperty -Path $Path -Name 'AutoTriggerDisabledProfilesList' -Value $Rest -Type MultiString
        }
        if ($Key.GetValue('AutoTriggerProfileEntryName', '') -eq $ProfileName) {
            foreach ($Name in @('AutoTriggerProfileEntryName', 'AutoTriggerProfilePhonebookPath', 'AutoTriggerProfileGUID', 'UserSID')) {
                Remove-ItemProperty -Path $Path -Name $Name -ErrorAction SilentlyContinue
            }
        }
    }
    $Path = 'HKLM:\SYSTEM\CurrentControlSet\Services\RasMan\DeviceTunnel'
    $Key = Get-Item -Path $Path -ErrorAction SilentlyContinue
    if ($DeviceTunnel -and $null -ne $Key -and $Key.GetValue('AutoTriggerProfileEntryName', '') -eq $ProfileName) {
        Remove-Item -Path $Path -Recurse -Force
    }
}

function Remove-Connection {
    & "$env:SystemRoot\System32\rasdial.exe" $ProfileName '/disconnect' | Out-Null
    $Instance = Get-BridgeInstance
    if ($null -ne $Instance) {
        try { $Session.DeleteInstance($Namespace, $Instance, $Options) } catch { Write-Verbose "The instance can't be deleted: $_" }
    }
    if ($AllUsers) {
        if (Get-VpnConnection -Name $ProfileName -AllUserConnection -ErrorAction SilentlyContinue) {
            Remove-VpnConnection -Name $ProfileName -AllUserConnection -Force
        }
    } elseif ($Sid -eq $OwnSid) {
        if (Get-VpnConnection -Name $ProfileName -ErrorAction SilentlyContinue) {
            Remove-VpnConnection -Name $ProfileName -Force
        }
    }
    Remove-ItemProperty -Path $NoteKey -Name $ProfileName -ErrorAction SilentlyContinue
    # The rest is the computer's, and needs its rights.
    try {
        Remove-Tracked
        Remove-NamedItems 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion\NetworkList\Profiles' 'ProfileName'
        Remove-AutoTrigger
    } catch {
        Write-Warning "Not everything that was left could be removed: $_"
    }
}

# What a profile says, in a form in which what Windows writes otherwise is alike.
function Get-Facts([string]$Text) {
    $Xml = New-Object -TypeName Xml.XmlDocument
    $Xml.XmlResolver = $null
    $Xml.LoadXml($Text)
    $Facts = New-Object -TypeName Collections.Generic.List[string]
    Add-Facts $Xml.DocumentElement '' $Facts
    return $Facts
}

function Get-ChildText($Node, [string]$Name) {
    foreach ($Child in $Node.ChildNodes) {
        if ($Child.LocalName -eq $Name) { return ($Child.InnerText -replace '\s', '').ToLowerInvariant() }
    }
    return ''
}

function Add-Facts($Node, [string]$Path, $Facts) {
    foreach ($Child in $Node.ChildNodes) {
        if ($Child.NodeType -ne [Xml.XmlNodeType]::Element) { continue }
        $Name = $Child.LocalName
        $Inner = @($Child.ChildNodes | Where-Object { $_.NodeType -eq [Xml.XmlNodeType]::Element })
        if ($Name -eq 'Route') {
            $Excluded = (Get-ChildText $Child 'ExclusionRoute') -eq 'true'
            $Facts.Add('Route ' + (Get-ChildText $Child 'Address') + '/' + (Get-ChildText $Child 'PrefixSize') + ' ' + $Excluded)
        } elseif ($Name -eq 'DomainNameInformation') {
            $Facts.Add('Name ' + (Get-ChildText $Child 'DomainName') + ' ' + (Get-ChildText $Child 'DnsServers'))
        } elseif ($Inner.Count -gt 0) {
            Add-Facts $Child "$Path/$Name" $Facts
        } else {
            $Value = ($Child.InnerText -replace '\s', '').ToLowerInvariant()
            if ($Name -eq 'Servers') {
                $Value = (@($Value -split ',' | ForEach-Object { ($_ -split ';')[0] })) -join ','
            }
            if ($Value -ne '' -and $Value -ne 'false' -and $Name -ne 'ProfileName' -and $Name -ne 'AlwaysOnActive') { $Facts.Add("$Path/$Name $Value") }
        }
    }
}

$Fault = Get-Fault
if ($Fault -eq '') {
    Write-Output "$ProfileName is as it should be."
    exit 0
}
Write-Output "$ProfileName is made: $Fault."
try {
    Remove-Connection
    # The bridge unescapes once; the ampersand comes first.
    $Escaped = $ProfileXml.Replace('&', '&amp;').Replace('<', '&lt;').Replace('>', '&gt;').Replace('"', '&quot;')
    $Instance = New-Object -TypeName Microsoft.Management.Infrastructure.CimInstance -ArgumentList $ClassName, $Namespace
    $Property = [Microsoft.Management.Infrastructure.CimProperty]
    $Instance.CimInstanceProperties.Add($Property::Create('ParentID', $ParentId, 'String', 'Key'))
    $Instance.CimInstanceProperties.Add($Property::Create('InstanceID', $InstanceId, 'String', 'Key'))
    $Instance.CimInstanceProperties.Add($Property::Create('ProfileXML', $Escaped, 'String', 'Property'))
    $Session.CreateInstance($Namespace, $Instance, $Options) | Out-Null
} catch {
    Write-Output "$ProfileName can't be made: $($_.Exception.Message)"
    exit 1
}

$Instance = Get-BridgeInstance
if ($null -eq $Instance) {
    if (Test-Present) {
        Set-Note 'unread'
        Write-Output "$ProfileName is made, and can't be read back on this release of Windows."
        exit 0
    }
    Write-Output "$ProfileName was made, and isn't there."
    exit 1
}
$There = Get-Facts $Instance.ProfileXML
$Missing = @(Get-Facts $ProfileXml | Where-Object { $There -notcontains $_ })
if ($Missing.Count -gt 0) {
    Write-Output "$ProfileName was made, and Windows didn't take: $($Missing -join '; ')"
    exit 1
}
if ($KeepStrategy) {
    # Windows would otherwise rewrite VpnStrategy after a fallback.
    New-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RasMan\Parameters' -Name 'VPNStrategyUsageDisabled' -PropertyType DWord -Value 1 -Force | Out-Null
}
Set-Note (Get-TextHash $Instance.ProfileXML)
Write-Output "$ProfileName is made, and reads back as it should."
exit 0
