package ikev2

import (
	"fmt"
	"strings"
)

// connectionName stands for the client's connection in commands.
const connectionName = "NAME"

// noProposal explains why client and gateway didn't agree. What the gateway would
// have taken it doesn't say, so the offer is held against the policies that
// gateways are most likely to have.
func (d *diagnosis) noProposal(x *round) *Finding {
	offer := d.c.offered()
	var texts []string
	for _, p := range offer {
		texts = append(texts, p.String())
	}
	f := d.finding(FindingNoProposal, SeverityError, "client and gateway have no algorithms in common",
		"The gateway accepts none of the client's %d proposals: %s.", len(offer), strings.Join(texts, ", "))
	for _, name := range []string{PolicyRRAS, PolicyStandard, PolicyEnhanced, PolicyHighSecurity} {
		p, ok := LookUpPolicy(name)
		if !ok || len(offer) == 0 {
			continue
		}
		n := Negotiate(offer, p)
		if n.OK {
			f.What += fmt.Sprintf(" A gateway with policy %s would have chosen %v.", name, n.Suite)
			continue
		}
		if len(n.Misses) > 0 {
			var faults []string
			for _, x := range n.Misses[0].Faults {
				faults = append(faults, x.String())
			}
			f.What += fmt.Sprintf(" With policy %s, proposal %d comes closest, but %s.", name, n.Misses[0].Offered+1, strings.Join(faults, "; "))
		}
	}
	f.Windows = []string{"13868", "800"}
	d.showRequest(f, x)
	d.showResponse(f, x)
	f.Advice = policyAdvice()
	return f
}

// policyAdvice says how to see the policies of both sides, and how to give them
// the one that is advised.
func policyAdvice() []Advice {
	server, client := []string{showPolicyServer}, []string{showPolicyClient}
	if s, err := EnhancedPolicy().ServerPowerShell(RecommendedSetup()); err == nil {
		server = append(server, s)
	}
	if s, err := EnhancedPolicy().ClientPowerShell(connectionName, false); err == nil {
		client = append(client, s)
	}
	return []Advice{
		{OnGateway, "See what RRAS accepts, and give it the policy that is advised. Clients that don't have it are refused from then on, so give it to both sides.", server},
		{OnClient, "See what the client offers, and give its connection the same policy.", client},
	}
}

// weakness tells of a weak suite that was agreed on.
func (d *diagnosis) weakness() {
	var weak []string
	for _, t := range d.c.suite.Transforms {
		if r := t.Assess(); r.Grade <= GradeWeak {
			weak = append(weak, r.About+" "+r.Reason)
		}
	}
	if len(weak) == 0 {
		return
	}
	f := d.finding(FindingWeakSuite, SeverityWarning, "what was agreed on is weak", "Client and gateway agreed on %v. %s.", d.c.suite, strings.Join(weak, "; "))
	if x := d.c.lastOf(ExchangeSAInit); x != nil {
		d.showResponse(f, x)
	}
	f.Advice = policyAdvice()
	d.add(f)
}
