package profilexml

import (
	"errors"
	"fmt"
	"strings"
)

// A PhonebookSetting is a value in the phone book that clients are to have, such
// as VpnStrategy=14: what a profile can't say, or not on all releases of Windows.
// The package rasphone edits phone books itself; this is for where only scripts
// get.
type PhonebookSetting struct {
	// Connection is the exact name of the connection.
	Connection string
	// AllUsers is for connections of all users, and device tunnels.
	AllUsers bool
	// Key and Value are as they stand in the file. A list can't be set.
	Key   string
	Value string
}

func (s *PhonebookSetting) check() error {
	bad := func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\ufffd' }
	switch {
	case s.Connection == "" || strings.ContainsFunc(s.Connection, bad):
		return errors.New("the connection has no name, or one with a control character")
	case s.Key == "" || strings.ContainsFunc(s.Key, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}):
		return fmt.Errorf("%q is no key of a phone book", s.Key)
	case strings.ContainsFunc(s.Value, func(r rune) bool { return bad(r) || r >= 0x7f || r == '[' || r == ']' }):
		return fmt.Errorf("%q can't be a value in a phone book", s.Value)
	}
	return nil
}

func (s *PhonebookSetting) variables(what string) string {
	run := "It must be run as the user, without administrator's rights."
	if s.AllUsers {
		run = "It must be run as SYSTEM, or as an administrator."
	}
	return commentPS(what, run) + "Set-StrictMode -Version 2.0\n$ErrorActionPreference = 'Stop'\n\n" +
		"$ProfileName = " + quotePS(s.Connection) + "\n$KeyName = " + quotePS(s.Key) + "\n$Wanted = " + quotePS(s.Value) + "\n$AllUsers = $" + fmt.Sprint(s.AllUsers) + "\n"
}

// DetectScript returns the PowerShell that ends with 0 if the value is there, and
// with 1 otherwise: one half of a remediation of Intune.
func (s *PhonebookSetting) DetectScript() (string, error) {
	if err := s.check(); err != nil {
		return "", err
	}
	return s.variables("Says whether a connection has a setting in the phone book.") + scriptPhonebook + scriptPhonebookDetect, nil
}

// RemediateScript returns the PowerShell that sets the value, and changes no other
// byte: the other half.
func (s *PhonebookSetting) RemediateScript() (string, error) {
	if err := s.check(); err != nil {
		return "", err
	}
	return s.variables("Gives a connection a setting in the phone book, and changes nothing else.") + scriptPhonebook + scriptPhonebookSet, nil
}

// scriptPhonebook finds the value. A phone book is read as one character a byte,
// so that its encoding doesn't matter.
const scriptPhonebook = `
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
`

const scriptPhonebookDetect = `
try {
    $Value = (Find-Value $Latin.GetString([IO.File]::ReadAllBytes($Path))).Value
} catch {
    Write-Output $_.Exception.Message
    exit 1
}
Write-Output "$KeyName is $Value."
if ($Value -cne $Wanted) { exit 1 }
exit 0
`

const scriptPhonebookSet = `
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
`
