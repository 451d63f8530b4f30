$ErrorActionPreference = 'Stop'
$change = {
    $ErrorActionPreference = 'Stop'
    $path = 'HKLM:\SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters'
    $sha256 = 'ce7cd58c10d19a0915bf1a55b3343937c2afa04518fe2733237786926e25654e'
    $sha1 = ''
    $plain = $true
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

    if ($true) {
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
}
# One after the other, and none after one that failed: its clients still have the others.
foreach ($gateway in @('ras1', 'o''neill')) {
    Invoke-Command -ComputerName $gateway -ScriptBlock $change
}
