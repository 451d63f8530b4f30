# Registers a task that Windows runs at its start. It must be run as an administrator.
$ErrorActionPreference = 'Stop'
$Action = New-ScheduledTaskAction -Execute 'C:\Program Files\aovlb\aovlb.exe' -Argument 'rasphone watch --all VpnStrategy=14'
$Trigger = New-ScheduledTaskTrigger -AtStartup
$Principal = New-ScheduledTaskPrincipal -UserId 'S-1-5-18' -LogonType ServiceAccount -RunLevel Highest
$Settings = New-ScheduledTaskSettingsSet -ExecutionTimeLimit ([TimeSpan]::Zero) -RestartCount 3 -RestartInterval (New-TimeSpan -Minutes 1) -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries
Register-ScheduledTask -TaskName 'Keep VPN' -Action $Action -Trigger $Trigger -Principal $Principal -Settings $Settings -Force | Out-Null
Start-ScheduledTask -TaskName 'Keep VPN'
