# Sets up an NPS server for Always On VPN. It must be run on it as an administrator.
$ErrorActionPreference = 'Stop'
$Netsh = Start-Process -FilePath 'netsh.exe' -ArgumentList 'nps set limitproxystate all=enable' -NoNewWindow -Wait -PassThru
if ($Netsh.ExitCode -ne 0) { throw 'netsh has not set limitproxystate, which needs the updates of July 2024' }
$Netsh = Start-Process -FilePath 'netsh.exe' -ArgumentList 'nps set requiremsgauth all=enable' -NoNewWindow -Wait -PassThru
if ($Netsh.ExitCode -ne 0) { throw 'netsh has not set requiremsgauth, which needs the updates of July 2024' }
if (-not (Test-Path -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RasMan\PPP\EAP\13')) { New-Item -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RasMan\PPP\EAP\13' -Force | Out-Null }
New-ItemProperty -Path 'HKLM:\SYSTEM\CurrentControlSet\Services\RasMan\PPP\EAP\13' -Name 'IgnoreNoRevocationCheck' -PropertyType DWord -Value 1 -Force | Out-Null
# NPS reads them when it starts. Logins that are under way are asked for again.
Restart-Service -Name 'IAS' -Force
