# Sets up an RRAS gateway for Always On VPN. It must be run on it as an administrator.
$ErrorActionPreference = 'Stop'
if (-not (Test-Path -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters')) { New-Item -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters' -Force | Out-Null }
New-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters' -Name 'UseHttps' -PropertyType DWord -Value 1 -Force | Out-Null
Remove-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters' -Name 'Sha256CertificateHash' -ErrorAction SilentlyContinue
