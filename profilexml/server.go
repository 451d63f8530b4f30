package profilexml

import "strings"

// ServerCommand returns the PowerShell that gives an RRAS gateway the suite as
// its policy, with the lifetimes that are recommended beside it: 8 hours for
// ESP, 24 hours for IKE, and 1000 MB. RRAS must be restarted to use it.
func (s Suite) ServerCommand() string {
	var b strings.Builder
	b.WriteString("Set-VpnServerConfiguration -CustomPolicy")
	p := s.PowerShell()
	for i, v := range valuesOf(&p) {
		b.WriteString(" -" + suiteFields[i].name + " " + *v)
	}
	b.WriteString(" -SALifeTimeSeconds 28800 -MMSALifeTimeSeconds 86400 -SADataSizeForRenegotiationKilobytes 1024000 -PassThru")
	return b.String()
}
