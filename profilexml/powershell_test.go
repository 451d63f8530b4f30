package profilexml

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A psReader reads PowerShell as strictly as what is written here allows: it knows
// the commands, parameters, variables and words that scripts may have, and takes
// nothing else. So whatever a field brings in beyond a literal is an error.
//
// See about_Parsing and about_Quoting_Rules. Backticks occur as the continuation
// of a line only, and double quotes with variables that are known.
type psReader struct {
	text string
	at   int
	// open are the brackets that are open, and the command before each.
	open []psBracket
	// command is the command whose arguments are read; start says that one may
	// begin.
	command  string
	start    bool
	literals []string // what literals hold
	err      error
}

type psBracket struct {
	close   byte
	command string
}

// psCommands are all commands, with their parameters.
var psCommands = map[string]string{
	"Add-VpnConnection":                   "Name ServerAddress ServerList TunnelType AuthenticationMethod EncryptionLevel SplitTunneling RememberCredential DnsSuffix AllUserConnection EapConfigXmlStream Force",
	"Set-VpnConnectionIPsecConfiguration": "ConnectionName AuthenticationTransformConstants CipherTransformConstants EncryptionMethod IntegrityCheckMethod PfsGroup DHGroup AllUserConnection Force",
	"Set-VpnServerConfiguration": "CustomPolicy AuthenticationTransformConstants CipherTransformConstants EncryptionMethod IntegrityCheckMethod PfsGroup DHGroup SALifeTimeSeconds MMSALifeTimeSeconds " +
		"SADataSizeForRenegotiationKilobytes Ikev2Ports SstpPorts PassThru",
	"Set-VpnAuthProtocol": "UserAuthProtocolAccepted RootCertificateNameToAccept CertificateEKUsToAccept PassThru",
	"Set-VpnAuthType":     "Type RadiusServer SharedSecret RadiusPort MsgAuthenticator", "Get-RemoteAccessRadius": "ErrorAction", "Add-RemoteAccessRadius": "Purpose ServerName SharedSecret Port MsgAuthenticator",
	"Add-VpnConnectionRoute": "ConnectionName DestinationPrefix RouteMetric AllUserConnection", "New-VpnServerAddress": "ServerAddress FriendlyName",
	"Add-VpnConnectionTriggerDnsConfiguration": "Name DnsSuffix DnsIPAddress Force", "Add-VpnConnectionTriggerTrustedNetwork": "Name DnsSuffix Force",
	"Add-VpnConnectionTriggerApplication": "Name ApplicationID Force", "Set-VpnConnectionProxy": "Name ProxyServer AutoConfigurationScript",
	"Get-VpnConnection": "Name AllUserConnection ErrorAction", "Remove-VpnConnection": "Name AllUserConnection Force",
	"Get-CimInstance": "ClassName Filter", "Invoke-CimMethod": "InputObject MethodName", "New-CimSession": "", "New-Object": "TypeName ArgumentList",
	"Get-Item": "Path ErrorAction", "Get-ChildItem": "Path Recurse ErrorAction", "New-Item": "Path Force", "Test-Path": "Path", "Join-Path": "Path ChildPath",
	"Remove-Item": "Path Recurse Force", "Set-ItemProperty": "Path Name Value Type", "Remove-ItemProperty": "Path Name ErrorAction",
	"New-ItemProperty": "Path Name PropertyType Value Force", "Where-Object": "", "ForEach-Object": "", "Sort-Object": "Unique", "Select-Object": "First", "Out-Null": "",
	"Write-Output": "", "Write-Verbose": "", "Write-Warning": "", "Set-StrictMode": "Version", "Restart-Service": "Name Force PassThru", "Start-Sleep": "Milliseconds", "Start-Process": "FilePath ArgumentList NoNewWindow Wait PassThru",
	"Read-Host": "AsSecureString Prompt", "New-ScheduledTaskAction": "Execute Argument", "New-ScheduledTaskTrigger": "AtStartup", "New-ScheduledTaskPrincipal": "UserId LogonType RunLevel",
	"New-ScheduledTaskSettingsSet": "ExecutionTimeLimit RestartCount RestartInterval AllowStartIfOnBatteries DontStopIfGoingOnBatteries", "New-TimeSpan": "Minutes",
	"Register-ScheduledTask": "TaskName Action Trigger Principal Settings Force", "Start-ScheduledTask": "TaskName",
	"Set-NetIsatapConfiguration": "State Router", "Get-NetIPInterface": "AddressFamily", "Set-NetIPInterface": "InterfaceIndex AddressFamily Forwarding Advertising",
	"Get-NetRoute": "AddressFamily DestinationPrefix InterfaceIndex ErrorAction", "New-NetRoute": "AddressFamily DestinationPrefix InterfaceIndex Publish",
	"Set-DANetworkLocationServer": "Url CheckReachability NlsOnDAServer Certificate", "Get-RemoteAccess": "", "Set-RemoteAccess": "SslCertificate", "New-SelfSignedCertificate": "CloneCert CertStoreLocation", "Get-Date": "", "Set-NCSIPolicyConfiguration": "DomainLocationDeterminationURL CorporateWebsiteProbeURL CorporateDNSProbeHostName CorporateDNSProbeHostAddress CorporateSitePrefixList",
	"Set-DAClientExperienceConfiguration": "PolicyStore CorporateResources FriendlyName SupportEmail PreferLocalNamesAllowed ForceTunneling ManualEntryPointSelectionAllowed GslbFqdn",
	"Get-DAEntryPointTableItem":           "PolicyStore EntryPointName ErrorAction", "New-DAEntryPointTableItem": "PolicyStore EntryPointName ADSite EntryPointRange EntryPointIPAddress GslbIP",
	// Of the scripts themselves.
	"Get-BridgeInstance": "", "Get-TextHash": "", "Get-Note": "", "Set-Note": "", "Test-Present": "", "Get-Fault": "", "Remove-NamedItems": "", "Remove-Tracked": "", "Remove-AutoTrigger": "", "Remove-Connection": "",
	"Get-Facts": "", "Get-ChildText": "", "Add-Facts": "", "Find-Value": "", "Copy-Ending": "",
}

// psKeywords may stand where commands do.
var psKeywords = strings.Fields("if else elseif foreach for function return try catch finally throw exit continue")

// psWords are arguments that aren't in quotes.
var psWords = strings.Fields(`in SilentlyContinue MultiString DWord Binary String ServiceAccount Highest Enabled Disabled IPv6 Yes Authentication ExternalRadius RemoteAccess
	Ikev2 Sstp L2tp Pptp Automatic Eap MSChapv2 MachineCertificate Required NoEncryption Maximum Optional EAP Certificate MsChapv2 Chap PAP PreSharedKey
	Microsoft.Management.Infrastructure.Options.CimOperationOptions Microsoft.Management.Infrastructure.CimInstance Net.NetworkCredential Xml.XmlDocument Collections.Generic.List[string]
	MD596 SHA196 SHA256128 GCMAES128 GCMAES192 GCMAES256 DES DES3 AES128 AES192 AES256 MD5 SHA1 SHA256 SHA384 None Group1 Group2 Group14 ECP256 ECP384 Group24 PFS1 PFS2 PFS2048 PFSMM PFS24`)

var psOperators = strings.Fields("-eq -ne -ceq -cne -gt -lt -and -or -not -contains -notcontains -notmatch -like -replace -split -join")

var psVariables = strings.Fields(`ErrorActionPreference ProfileName InstanceId ProfileHash AllUsers DeviceTunnel KeepStrategy ProfileXml Namespace ClassName ParentId SystemSid OwnSid Sid Sids
	NoteKey Session Options Instance Text Sha Bytes Key Expected Path Value Tail Root Name Count Disabled Rest Xml Facts Node Child Inner Excluded Fault Escaped Property There Missing
	true false null _ Action Trigger Principal Settings Eap Isatap KeyName Wanted Folder Latin Headers Found Start End Lines Group Try Temp At New RadiusServers Known Secret RenewDays Old Source Copy Access Netsh`)

var psTypes = strings.Fields(`string char byte[] string[] regex guid Security.Principal.WindowsIdentity Security.Cryptography.SHA256 Text.Encoding Convert BitConverter StringComparison
	Xml.XmlNodeType Microsoft.Management.Infrastructure.CimProperty TimeSpan IO.File IO.IOException IO.FileNotFoundException IO.DirectoryNotFoundException`)

// The patterns are read by hand: regular expressions borrow memory from pools, so
// that a fuzzer takes each run of them for a new way through the code, and spends
// its time on making such cases small.

// A psPattern returns how much of the beginning of a text it takes.
type psPattern func(s string) int

func isPSLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
func isPSDigit(c byte) bool  { return c >= '0' && c <= '9' }
func isPSWord(c byte) bool   { return isPSLetter(c) || isPSDigit(c) }
func isPSHex(c byte) bool {
	return isPSDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// run returns the offset behind the bytes from at on that f is true of.
func run(s string, at int, f func(byte) bool) int {
	for at < len(s) && f(s[at]) {
		at++
	}
	return at
}

// plainName takes a name: a letter, and letters and digits; 0 if there is none.
func plainName(s string, at int) int {
	if at >= len(s) || !isPSLetter(s[at]) {
		return 0
	}
	return run(s, at, isPSWord)
}

func psName(s string) int {
	at := plainName(s, 0)
	for at > 0 && at+1 < len(s) && (s[at] == '-' || s[at] == '.') && isPSWord(s[at+1]) {
		at = run(s, at+1, isPSWord)
	}
	if at > 0 && strings.HasPrefix(s[at:], "[string]") {
		at += len("[string]")
	}
	return at
}

func psDash(s string) int {
	if s[0] != '-' {
		return 0
	}
	return plainName(s, 1)
}

func psVar(s string) int {
	switch {
	case s[0] != '$':
		return 0
	case strings.HasPrefix(s, "$env:"):
		if end := run(s, len("$env:"), isPSLetter); end > len("$env:") {
			return end
		}
	case strings.HasPrefix(s, "${"):
		if end := run(s, len("${"), isPSLetter); end > len("${") && end < len(s) && s[end] == '}' {
			return end + 1
		}
		return 0
	}
	if len(s) > 1 && s[1] == '_' {
		return run(s, 2, isPSWord)
	}
	return plainName(s, 1)
}

func psNumber(s string) int {
	if strings.HasPrefix(s, "0x") && len(s) > 2 && isPSHex(s[2]) {
		return run(s, 2, isPSHex)
	}
	at := run(s, 0, isPSDigit)
	if at > 0 && at+1 < len(s) && s[at] == '.' && isPSDigit(s[at+1]) {
		at = run(s, at+1, isPSDigit)
	}
	return at
}

func psMember(s string) int {
	switch {
	case s[0] == '.':
		return plainName(s, 1)
	case strings.HasPrefix(s, "::"):
		return plainName(s, 2)
	}
	return 0
}

func psType(s string) int {
	if len(s) < 2 || s[0] != '[' || !isPSLetter(s[1]) {
		return 0
	}
	at := run(s, 1, func(c byte) bool { return isPSWord(c) || c == '.' })
	if strings.HasPrefix(s[at:], "[]") {
		at += 2
	}
	if at == len(s) || s[at] != ']' {
		return 0
	}
	return at + 1
}

func (r *psReader) fail(format string, args ...any) {
	if r.err == nil {
		line := 1 + strings.Count(r.text[:r.at], "\n")
		rest := r.text[r.at:]
		r.err = fmt.Errorf("line %d: %s, at %.50q", line, fmt.Sprintf(format, args...), rest)
	}
}

func (r *psReader) take(p psPattern) string {
	if r.at == len(r.text) {
		return ""
	}
	s := r.text[r.at:]
	s = s[:p(s)]
	r.at += len(s)
	return s
}

func (r *psReader) has(prefix string) bool { return strings.HasPrefix(r.text[r.at:], prefix) }

// readPS reads a script, and returns what its literals hold.
func readPS(text string) ([]string, error) {
	r := &psReader{text: text, start: true}
	for r.err == nil && r.at < len(text) {
		r.token()
	}
	if r.err == nil && len(r.open) > 0 {
		r.fail("%d brackets aren't closed", len(r.open))
	}
	return r.literals, r.err
}

// token reads the next token.
func (r *psReader) token() {
	c := r.text[r.at]
	switch {
	case c >= 0x7f || c < ' ' && c != '\n':
		r.fail("a character that isn't ASCII")
	case c == ' ':
		r.at++
	case c == '\n':
		r.at++
		r.end()
	case c == '#':
		for r.at < len(r.text) && r.text[r.at] != '\n' {
			r.at++
		}
	case r.has("`\n"):
		r.at += 2
	case r.has("@'\n"):
		r.hereString()
	case c == '\'':
		r.single()
	case c == '"':
		r.double()
	case c == '$' && !r.has("$("):
		r.variable()
	case c == '-':
		r.dash()
	case c >= '0' && c <= '9':
		if r.take(psNumber); r.has("..") {
			r.at += 2
		}
		r.start = false
	case c == '[':
		r.bracket()
	case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
		r.word()
	default:
		r.punctuation(c)
	}
}

// end ends a command.
func (r *psReader) end() { r.command, r.start = "", true }

func (r *psReader) hereString() {
	end := strings.Index(r.text[r.at+2:], "\n'@")
	if end < 0 {
		r.fail("a here-string doesn't end")
		return
	}
	body := ""
	if end > 0 {
		body = r.text[r.at+3 : r.at+2+end]
	}
	r.literals = append(r.literals, body)
	r.at += 2 + end + len("\n'@")
	r.start = false
}

func (r *psReader) single() {
	var s strings.Builder
	for r.at++; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; {
		case c == '\'' && strings.HasPrefix(r.text[r.at:], "''"):
			s.WriteByte(c)
			r.at++
		case c == '\'':
			r.at++
			r.start = false
			r.literals = append(r.literals, s.String())
			return
		case c < ' ' || c >= 0x7f:
			r.fail("a character in a string that isn't ASCII")
			return
		default:
			s.WriteByte(c)
		}
	}
	r.fail("a string doesn't end")
}

// double reads a string in double quotes, and what is expanded in it.
func (r *psReader) double() {
	for r.at++; r.at < len(r.text) && r.err == nil; {
		switch c := r.text[r.at]; {
		case c == '"':
			r.at++
			r.start = false
			return
		case r.has("$("):
			r.at += 2
			depth := len(r.open)
			r.push(')')
			for r.err == nil && r.at < len(r.text) && len(r.open) > depth {
				r.token()
			}
		case c == '$':
			r.variable()
		case c == '`' || c < ' ' || c >= 0x7f:
			r.fail("a character that double quotes don't have here")
		default:
			r.at++
		}
	}
}

func (r *psReader) variable() {
	v := r.take(psVar)
	name := strings.Trim(strings.TrimPrefix(v, "$"), "{}")
	if !slices.Contains(psVariables, name) && !slices.Contains([]string{"env:SystemRoot", "env:ProgramData", "env:APPDATA"}, name) {
		r.fail("the variable %q isn't known", name)
	}
	r.start = false
}

// dash reads an operator or a parameter.
func (r *psReader) dash() {
	d := r.take(psDash)
	switch {
	case d == "" && (r.has("- ") || r.has("-1") || r.has("-replace")):
		r.at++
	case d == "":
		r.fail("a dash")
	case r.command != "" && slices.Contains(strings.Fields(psCommands[r.command]), d[1:]):
		if r.has(":$") { // a switch with a value
			r.at++
		}
	case slices.Contains(psOperators, d) && (r.command == "" || r.command == "Where-Object"):
	default:
		r.fail("%q has no parameter, and PowerShell no operator, %q", r.command, d)
	}
	r.start = false
}

// bracket reads a type, or an index.
func (r *psReader) bracket() {
	if m := r.take(psType); m != "" {
		if !slices.Contains(psTypes, m[1:len(m)-1]) {
			r.fail("the type %q isn't known", m)
		}
		return
	}
	r.at++
	r.push(']')
}

func (r *psReader) push(end byte) {
	r.open = append(r.open, psBracket{end, r.command})
	r.end()
}

func (r *psReader) word() {
	start := r.at
	w := r.take(psName)
	_, command := psCommands[w]
	switch {
	case r.start && command:
		r.command, r.start = w, false
	case r.start && slices.Contains(psKeywords, w):
		r.command, r.start = "", true
		if w == "function" {
			r.at++
			name := r.take(psName)
			if _, ok := psCommands[name]; !ok {
				r.fail("the function %q isn't known", name)
			}
		}
	case r.start && len(r.open) > 0 && r.open[len(r.open)-1].close == '}' && slices.Contains([]string{"Index", "Length", "Value"}, w): // keys of a table
	case !r.start && slices.Contains(psWords, w):
		r.start = w == "in"
	default:
		r.at = start
		r.fail("the word %q isn't known here", w)
	}
}

func (r *psReader) punctuation(c byte) {
	if r.at > 0 && r.text[r.at-1] != ' ' && r.take(psMember) != "" {
		return
	}
	switch {
	case r.has("@("), r.has("$("):
		r.at += 2
		r.push(')')
	case r.has("@{"):
		r.at += 2
		r.push('}')
	case c == '(' || c == '{':
		r.at++
		r.push(map[byte]byte{'(': ')', '{': '}'}[c])
	case c == ')' || c == '}' || c == ']':
		if len(r.open) == 0 || r.open[len(r.open)-1].close != c {
			r.fail("a bracket that isn't open")
			return
		}
		r.command = r.open[len(r.open)-1].command
		r.open = r.open[:len(r.open)-1]
		r.at++
		r.start = c == '}'
	case c == '|' || c == ';':
		r.at++
		r.end()
	case c == '=' || r.has("++"):
		r.at += map[bool]int{true: 1, false: 2}[c == '=']
		r.end()
	case c == '&' && r.has(`& "$env:SystemRoot\System32\rasdial.exe" $ProfileName '/disconnect'`):
		r.at++
	case c == ',' || c == '+':
		r.at++
	default:
		r.fail("%q doesn't belong here", c)
	}
}

// TestReaderBites: the reader takes nothing that a field could bring in.
func TestReaderBites(t *testing.T) {
	for _, script := range []string{
		"Write-Output 'a' ; Stop-Computer\n", "Write-Output $(Stop-Computer)\n", "Write-Output \"$(Stop-Computer)\"\n", "Write-Output 'a'b'\n", "Write-Output 'a\n", "Write-Output \u2018a\u2019\n",
		"Get-Item -Path x\n", "Get-Item -Include 'x'\n", "Write-Output $Other\n", "iex 'x'\n", "& 'x'\n", "Write-Output (1\n", "Write-Output 1)\n", "Write-Output @'\na\n", "'a' > 'b'\n",
		"[IO.Directory]::Delete('x')\n", "Write-Output \"a`n\"\n", "$Text = @\"\n$(x)\n\"@\n", ". 'x'\n", "Write-Output { ( }\n", "Set-VpnAuthProtocol -PassThru:$true -Evil\n",
	} {
		if _, err := readPS(script); err == nil {
			t.Errorf("%q is taken", script)
		}
	}
	for script, want := range map[string]string{
		"Write-Output 'it''s'\n":                     "it's",
		"$Text = @'\na'b $c `d \"\n'@\n":             "a'b $c `d \"",
		"Write-Output ('a' + [char]0x00E9 + '') # x": "a",
	} {
		got, err := readPS(script)
		if err != nil || got[0] != want {
			t.Errorf("%q: %q, %v", script, got, err)
		}
	}
}

func TestQuotePS(t *testing.T) {
	for s, want := range map[string]string{
		"":             "''",
		"a b":          "'a b'",
		"it's $x `n":   "'it''s $x `n'",
		"é":            "('' + [char]0x00E9 + '')",
		"a\u2019b\r\n": "('a' + [char]0x2019 + 'b' + [char]0x000D + '' + [char]0x000A + '')",
		"😀":            "('' + [char]0xD83D + '' + [char]0xDE00 + '')",
	} {
		if got := quotePS(s); strings.ReplaceAll(got, " + ''", "") != strings.ReplaceAll(want, " + ''", "") {
			t.Errorf("%q is %s, want %s", s, got, want)
		}
	}
}
