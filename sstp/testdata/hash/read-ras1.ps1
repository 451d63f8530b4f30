Invoke-Command -ComputerName 'ras1' -ScriptBlock {
    $key = Get-Item 'HKLM:\SYSTEM\CurrentControlSet\Services\SstpSvc\Parameters'
    if ($key.GetValue('isHashConfiguredByAdmin') -eq 1) {
        -join ($key.GetValue('SHA256CertificateHash') | ForEach-Object { $_.ToString('x2') })
    }
}
