package ikev2

import "strings"

// noProposal explains why client and gateway didn't agree.
func (d *diagnosis) noProposal(x *round) *Finding {
	var offers []string
	for _, p := range d.c.offered() {
		offers = append(offers, p.String())
	}
	f := d.finding(FindingNoProposal, SeverityError, "client and gateway have no algorithms in common",
		"The gateway accepts none of the client's %d proposals: %s.", len(offers), strings.Join(offers, ", "))
	f.Windows = []string{"13868", "800"}
	d.showRequest(f, x)
	d.showResponse(f, x)
	f.Advice = d.policyAdvice()
	return f
}

func (d *diagnosis) policyAdvice() []Advice {
	return []Advice{
		{OnGateway, "See what RRAS accepts.", []string{showPolicyServer}},
		{OnClient, "See what the client offers.", []string{showPolicyClient}},
	}
}

// weakness tells of a weak suite that was agreed on.
func (d *diagnosis) weakness() {
	var weak []string
	for _, t := range d.c.suite.Transforms {
		if why := weakTransform(t); why != "" {
			weak = append(weak, t.String()+" ("+why+")")
		}
	}
	if len(weak) == 0 {
		return
	}
	f := d.finding(FindingWeakSuite, SeverityWarning, "what was agreed on is weak", "Client and gateway agreed on %v. Weak are: %s.", d.c.suite, strings.Join(weak, ", "))
	if x := d.c.lastOf(ExchangeSAInit); x != nil {
		d.showResponse(f, x)
	}
	f.Advice = d.policyAdvice()
	d.add(f)
}

func weakTransform(t Transform) string {
	switch t.Type {
	case TransformEncr:
		switch t.ID {
		case EncrDES, Encr3DES, EncrNULL:
			return "cipher"
		}
	case TransformPRF:
		switch t.ID {
		case PRFHMACMD5, PRFHMACSHA1:
			return "hash"
		}
	case TransformInteg:
		switch t.ID {
		case IntegHMACMD5, IntegHMACSHA1:
			return "hash"
		}
	case TransformKE:
		switch Group(t.ID) {
		case GroupMODP768, GroupMODP1024, GroupMODP1536, GroupMODP1024S160, GroupMODP2048S256:
			return "group"
		}
	}
	return ""
}
