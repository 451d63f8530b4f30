# Gives a connection a setting in the phone book, and changes nothing else.
# It must be run as the user, without administrator's rights.
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$ProfileName = ('B' + [char]0x00FC + 'ro VPN')
$KeyName = 'VpnStrategy'
$Wanted = '14'
$AllUsers = $false

if ($AllUsers) { $Folder = $env:ProgramData } else { $Folder = $env:APPDATA }
$Path = Join-Path -Path $Folder -ChildPath 'Microsoft\Network\Connections\Pbk\rasphone.pbk'
$Latin = [Text.Encoding]::GetEncoding(28591)

# Where the value is in the text, or why it can't be found.
function Find-Value([string]$Text) {
    $Name = $Latin.GetString([Text.Encoding]::UTF8.GetBytes($ProfileName))
    $Headers = [regex]::Matches($Text, '(?m)^\[(.*)\][^\]\r\n]*\r*$')
    $Found = @(0..($Headers.Count - 1) | Where-Object { $Headers.Count -gt 0 -and $Headers[$_].Groups[1].Value -ceq $Name })
    if ($Found.Count -ne 1) { throw "The phone book has $($Found.Count) connections of this name." }
    $Start = $Headers[$Found[0]].Index
    $End = $Text.Length
    if ($Found[0] + 1 -lt $Headers.Count) { $End = $Headers[$Found[0] + 1].Index }
    $Lines = [regex]::Matches($Text.Substring($Start, $End - $Start), '(?m)^' + [regex]::Escape($KeyName) + '=([^\r\n]*)')
    if ($Lines.Count -ne 1) { throw "The connection has $KeyName $($Lines.Count) times." }
    $Group = $Lines[0].Groups[1]
    return @{ Index = $Start + $Group.Index; Length = $Group.Length; Value = $Group.Value }
}

for ($Try = 0; $Try -lt 20; $Try++) {
    $Temp = "$Path.aovlb.$([guid]::NewGuid().ToString('N')).tmp"
    try {
        $Text = $Latin.GetString([IO.File]::ReadAllBytes($Path))
        $At = Find-Value $Text
        if ($At.Value -ceq $Wanted) {
            Write-Output "$KeyName is $Wanted."
            exit 0
        }
        $New = $Text.Substring(0, $At.Index) + $Wanted + $Text.Substring($At.Index + $At.Length)
        [IO.File]::WriteAllBytes($Temp, $Latin.GetBytes($New))
        if ($Latin.GetString([IO.File]::ReadAllBytes($Path)) -cne $Text) { continue }
        # Replaces the file in one step, and keeps its access control list.
        [IO.File]::Replace($Temp, $Path, "$Path.aovlb.bak")
        Write-Output "$KeyName was $($At.Value), and is $Wanted."
        exit 0
    } catch [IO.FileNotFoundException], [IO.DirectoryNotFoundException] {
        Write-Output 'There is no phone book.'
        exit 1
    } catch [IO.IOException] {
        Start-Sleep -Milliseconds 500
    } catch {
        Write-Output $_.Exception.Message
        exit 1
    } finally {
        if (Test-Path -Path $Temp) { Remove-Item -Path $Temp -Force }
    }
}
Write-Output 'The phone book was in use all the time.'
exit 1
