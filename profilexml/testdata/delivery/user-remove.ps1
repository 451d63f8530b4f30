# Removes a VPN connection.
# It must be run as SYSTEM, or as the user with administrator's rights.
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$ProfileName = 'Always On VPN'
$InstanceId = 'Always%20On%20VPN'
$ProfileHash = '4d8227f1f7a6ee2a5bbc85612c0a2ee7fb4b5c330ecbb6c9cdd8b6bb27241d1c'
$AllUsers = $false
$DeviceTunnel = $false
$KeepStrategy = $false

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

Remove-Connection
if ($null -ne (Get-BridgeInstance)) {
    Write-Output "$ProfileName can't be removed."
    exit 1
}
Write-Output "$ProfileName is removed."
exit 0
