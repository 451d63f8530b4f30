# Says whether a VPN connection is as it should be.
# It must be run as SYSTEM.
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$ProfileName = 'It''s (all) $users'
$InstanceId = 'It''s%20(all)%20$users'
$ProfileHash = 'e3fb1b3f41e6bedc9c1c219b88893cd53568e171b6a409761002bcc91141fca9'
$AllUsers = $true
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

$Fault = Get-Fault
if ($Fault -eq '') {
    Write-Output "$ProfileName is as it should be."
    exit 0
}
Write-Output "${ProfileName}: $Fault."
exit 1
