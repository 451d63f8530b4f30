package ikev2

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// This file judges one conversation: what became of it, why, and what else is
// remarkable. It is careful to say nothing of what only looks bad because the
// capture ends: a request counts as unanswered when it was sent again, or when
// there was time to answer.

const (
	// patience is how long an answer may take before its absence means
	// something.
	patience = 3 * time.Second
	// slowAfter is when an answer is called slow, and slowTimes after how many
	// requests.
	slowAfter = 3 * time.Second
	slowTimes = 3
	// minFinalAuth is the shortest IKE_AUTH response that makes a tunnel: it
	// has AUTH, SA and two traffic selectors besides what encrypts them. A
	// refusal is shorter, and so are the steps of EAP that announce one.
	minFinalAuth = 160
	// maxBareAuth is the longest first IKE_AUTH request that is taken for one
	// without a certificate and signature.
	maxBareAuth = 1000
	// idleTunnel is how long a new tunnel may carry nothing: Windows asks for
	// names at once.
	idleTunnel = 10 * time.Second
	// neverUsedWithin is how soon after its making a tunnel must be given up to
	// count as one that was of no use.
	neverUsedWithin = 10 * time.Second
)

// diagnosis is the work on one conversation.
type diagnosis struct {
	c          *conversation
	began, end time.Time
	blind      bool // ESP would not have been seen
	// seen, if not nil, tells of who is blind whether a client's ESP was seen
	// elsewhere, and whether that is known.
	seen     func(SPI) (yes, known bool)
	outcome  Outcome
	cause    FindingID
	findings []Finding
}

func (d *diagnosis) run() {
	c := d.c
	if !c.midway {
		d.handshake()
	} else if c.esp != [2]uint64{} || c.count(func(x *round) bool { return x.answered() }) > 0 {
		d.outcome = OutcomeEstablished
	}
	if d.outcome == OutcomeEstablished {
		d.established()
	}
	d.remarks()
}

// handshake finds out whether the tunnel came up, and if not, why.
func (d *diagnosis) handshake() {
	c := d.c
	first := c.lastOf(ExchangeSAInit, ExchangeSessionResume)
	auth := c.lastOf(ExchangeAuth, ExchangeIntermediate)
	switch {
	case d.proven():
		d.outcome = OutcomeEstablished
	case first == nil:
	case auth != nil && auth.answered():
		d.authAnswered(auth)
	case auth != nil:
		if d.unanswered(auth) || auth.response.seen() && d.quiet(auth.response.last) {
			d.authUnanswered(auth)
		}
	case !first.answered():
		if d.unanswered(first) {
			d.initUnanswered(first)
		}
	case first.response.notify != 0:
		d.initRefused(first)
	case d.quiet(first.response.last) || c.restarted:
		d.fail(d.never4500(first))
	}
}

// proven reports whether something was seen that only an established SA has.
func (d *diagnosis) proven() bool {
	return d.c.esp[sideGateway] > 0 || d.c.esp[sideClient] > 0 || len(d.c.sas) > 1 ||
		d.c.count(func(x *round) bool { return x.kind == ExchangeCreateChildSA && x.answered() }) > 0
}

// quiet reports whether all that was captured goes on long enough after t that
// what didn't follow isn't to follow.
func (d *diagnosis) quiet(t time.Time) bool { return d.end.Sub(t) >= patience }

// unanswered reports whether a request was in vain.
func (d *diagnosis) unanswered(x *round) bool {
	return x.request.seen() && !x.response.seen() &&
		(x.request.times > 1 || x.request.incomplete > 1 || d.quiet(x.request.last))
}

// finding begins a Finding about this conversation.
func (d *diagnosis) finding(id FindingID, s Severity, title, what string, args ...any) *Finding {
	if d.c.restarted && s == SeverityError {
		// Clients try again by themselves; it is the same fault.
		what = strings.TrimSpace(what)
	}
	return &Finding{
		ID: id, Severity: s, Title: title, What: fmt.Sprintf(what, args...), Times: 1,
		SPIs: []string{d.c.sas[0].spi.String()}, Clients: []netip.Addr{d.c.client.Addr()},
	}
}

func (d *diagnosis) add(f *Finding) { d.findings = append(d.findings, *f) }

// fail makes f the reason why there is no tunnel.
func (d *diagnosis) fail(f *Finding) {
	d.outcome, d.cause = OutcomeFailed, f.ID
	d.add(f)
}

func (d *diagnosis) show(f *Finding, at time.Time, packet int, text string, args ...any) {
	f.Evidence = append(f.Evidence, Evidence{Packet: packet, Time: at, At: d.at(at), Text: fmt.Sprintf(text, args...)})
}

// showRequest shows a request, and that it was repeated.
func (d *diagnosis) showRequest(f *Finding, x *round) {
	r := &x.request
	d.show(f, r.first, r.packet, "%v", d.describe(x, r, false))
	if r.latest != r.packet || r.last != r.first {
		d.show(f, r.last, r.latest, "sent for the last time")
	}
}

func (d *diagnosis) showResponse(f *Finding, x *round) {
	d.show(f, x.response.first, x.response.packet, "%v", d.describe(x, &x.response, true))
}

// initUnanswered explains an IKE_SA_INIT request without an answer.
func (d *diagnosis) initUnanswered(x *round) {
	c := d.c
	if i := d.icmpAbout(x.request.port, ICMPPortUnreachable); i != nil {
		f := d.finding(FindingPortUnreachable, SeverityError, "nobody listens on the gateway's UDP port 500",
			"The client's IKE_SA_INIT reached %v, which said that no program listens there: the gateway's VPN service is stopped, or a balancer sends its clients to a machine that isn't one.", i.reporter)
		f.Windows = []string{"809"}
		d.showRequest(f, x)
		d.show(f, i.at, i.packet, "ICMP port unreachable from %v", i.reporter)
		f.Advice = []Advice{adviseListening(), {OnBalancer, "See whether the balancer knows the gateway to be down.", []string{checkBalancer}}}
		d.fail(f)
		return
	}
	if i := d.icmpAbout(x.request.port, ICMPProhibited, ICMPUnreachable); i != nil {
		d.fail(d.prohibited(x, i))
		return
	}
	if x.request.cookie {
		f := d.finding(FindingHalfOpenLimit, SeverityError, "the gateway answers no more handshakes from this address",
			"The gateway asked the client for a cookie, got it, and answered no more: it has as many half-open handshakes as it allows, from this address or in all. Many clients behind one address, a balancer that puts its own address in place of theirs, or a flood can be why.")
		f.Windows = []string{"809"}
		d.showRequest(f, x)
		f.Advice = []Advice{adviseThrottle(), {OnBalancer, "Have the balancer leave the clients' addresses as they are (clientAddress: transparent), so that the gateway can tell them apart.", []string{checkBalancer}}}
		d.fail(f)
		return
	}
	f := d.finding(FindingNoAnswer, SeverityError, "the gateway never answered",
		"The client sent IKE_SA_INIT to UDP port %d of %v and got no answer at all: the gateway is down or not there, or something on the way drops UDP 500 in one direction.", x.request.port, c.gateway.Addr())
	f.Windows = []string{"809"}
	d.showRequest(f, x)
	f.Advice = []Advice{adviseProbe(), advisePorts("500 and 4500"), adviseListening()}
	d.fail(f)
}

// icmpAbout returns the first ICMP error of these kinds about a datagram of the
// client to a port.
func (d *diagnosis) icmpAbout(port uint16, kinds ...ICMPError) *icmpSeen {
	for i := range d.c.icmp {
		e := &d.c.icmp[i]
		for _, k := range kinds {
			if e.kind == k && e.by == sideClient && e.port == port {
				return e
			}
		}
	}
	return nil
}

func (d *diagnosis) prohibited(x *round, i *icmpSeen) *Finding {
	title, what := "a filter rejects IKE", "%v said that it lets no packet to UDP port %d of the gateway pass."
	if i.kind == ICMPUnreachable {
		title, what = "there is no way to the gateway", "%v said that it has no way for packets to UDP port %d of the gateway: a route is missing, or the gateway is down."
	}
	f := d.finding(FindingProhibited, SeverityError, title, what, i.reporter, x.request.port)
	f.Windows = []string{"809"}
	d.showRequest(f, x)
	d.show(f, i.at, i.packet, "ICMP %v from %v", i.kind, i.reporter)
	f.Advice = []Advice{advisePorts("500 and 4500")}
	return f
}

// initRefused explains an IKE_SA_INIT that was answered by an error.
func (d *diagnosis) initRefused(x *round) {
	switch n := x.response.notify; n {
	case NotifyNoProposalChosen:
		d.fail(d.noProposal(x))
	case NotifyCookie, NotifyInvalidKEPayload:
		if !d.quiet(x.response.last) {
			return
		}
		f := d.finding(FindingRefused, SeverityError, "the client didn't come again",
			"The gateway answered %v, and the client, which should have tried again with what that asks for, did not.", n)
		if n == NotifyInvalidKEPayload {
			f.What += fmt.Sprintf(" It had used %v and was asked for %v: perhaps it doesn't offer that group.", d.c.group, d.c.wanted)
		}
		d.showRequest(f, x)
		d.showResponse(f, x)
		f.Advice = policyAdvice()
		d.fail(f)
	default:
		f := d.finding(FindingRefused, SeverityError, "the gateway refused the handshake", "The gateway answered IKE_SA_INIT by %v.", n)
		d.showRequest(f, x)
		d.showResponse(f, x)
		f.Advice = []Advice{adviseProbe()}
		d.fail(f)
	}
}

// never4500 explains a handshake that ends after port 500.
func (d *diagnosis) never4500(x *round) *Finding {
	what := "IKE_SA_INIT was answered, and then nothing more came: the client goes on at UDP port 4500, and what it sends there doesn't get here, or the answer on port 500 didn't get to it."
	if x.request.port == PortNATT {
		what = "IKE_SA_INIT was answered on UDP port 4500, and then nothing more came: the answer didn't get to the client."
	}
	f := d.finding(FindingNever4500, SeverityError, "UDP 500 works, UDP 4500 never comes", what)
	f.Windows = []string{"809"}
	d.showRequest(f, x)
	d.showResponse(f, x)
	f.Advice = []Advice{advisePorts("4500"), {OnBalancer, "See that the balancer has a listener for UDP 4500 in the same group as that for 500.", []string{checkBalancer}}, adviseProbe()}
	if !d.c.fragmentation[sideGateway] || !d.c.fragmentation[sideClient] {
		f.What += " If IKE_AUTH is large, its IP fragments may be what is dropped: " + d.fragmentationText() + "."
		f.Advice = append(f.Advice, adviseServerFragmentation())
	}
	return f
}

// fragmentationText says who announces IKE fragmentation.
func (d *diagnosis) fragmentationText() string {
	switch d.c.fragmentation {
	case [2]bool{true, true}:
		return "both sides announce IKE fragmentation"
	case [2]bool{true, false}:
		return "the client announces IKE fragmentation and the gateway doesn't"
	case [2]bool{false, true}:
		return "the gateway announces IKE fragmentation and the client doesn't"
	}
	return "neither side announces IKE fragmentation"
}

// authUnanswered explains an IKE_AUTH without an answer, or without a whole one.
func (d *diagnosis) authUnanswered(x *round) {
	c := d.c
	answered := c.count(func(x *round) bool { return x.kind == ExchangeAuth && x.answered() })
	switch {
	case c.initAt != c.authAt && c.initAt != "" && c.authAt != "":
		d.fail(d.split(x))
	case x.response.seen():
		d.fail(d.fragmentsLost(x, &x.response, "gateway"))
	case d.icmpAbout(x.request.port, ICMPPortUnreachable) != nil:
		i := d.icmpAbout(x.request.port, ICMPPortUnreachable)
		f := d.finding(FindingPortUnreachable, SeverityError, "nobody listens on the gateway's UDP port 4500",
			"The client's IKE_AUTH reached %v, which said that no program listens on UDP port %d.", i.reporter, x.request.port)
		f.Windows = []string{"809"}
		d.showRequest(f, x)
		f.Advice = []Advice{adviseListening()}
		d.fail(f)
	case d.icmpAbout(x.request.port, ICMPProhibited, ICMPUnreachable) != nil:
		d.fail(d.prohibited(x, d.icmpAbout(x.request.port, ICMPProhibited, ICMPUnreachable)))
	case answered > 0:
		d.fail(d.stalled(x, answered))
	case x.request.incomplete > 0 || x.request.ipFragments > 1 || x.request.fragments.Total() > 0 && !x.request.fragments.Whole():
		d.fail(d.fragmentsLost(x, &x.request, "client"))
	default:
		f := d.finding(FindingAuthUnanswered, SeverityError, "UDP 500 is answered, UDP 4500 is not",
			"IKE_SA_INIT was answered on UDP port 500. IKE_AUTH went to port %d whole, was sent %d times, and nobody answered. Seen from here it can't be told apart whether UDP 4500 is blocked on the way, whether a balancer sends it to another gateway than 500, which keeps silent about what it doesn't know, or whether the gateway has too many clients of this address.", x.request.port, x.request.times)
		f.Windows = []string{"809"}
		d.showRequest(f, x)
		f.Advice = []Advice{
			advisePorts("4500"),
			{OnBalancer, "See that UDP 500 and 4500 of a client go to the same gateway; on other balancers than aovlb, persistence must be by address and across both ports.", []string{checkBalancer, "aovlb explain " + c.client.Addr().String()}},
			adviseThrottle(),
		}
		if x.request.fragments.Total() > 0 {
			f.What += fmt.Sprintf(" It was sent in %d IKE fragments of up to %d octets: perhaps even those are too large for the way.", x.request.fragments.Total(), x.request.largest)
			f.Advice = append(f.Advice, Advice{OnClient, "Measure what the way to the gateway takes.", []string{testPath}})
		}
		d.fail(f)
	}
}

func (d *diagnosis) split(x *round) *Finding {
	f := d.finding(FindingSplitGateways, SeverityError, "UDP 500 and 4500 went to different gateways",
		"IKE_SA_INIT came to %s and IKE_AUTH to %s, which has never heard of the SA and keeps silent. The balancer treats the two ports as separate.", d.c.initAt, d.c.authAt)
	f.Windows = []string{"809"}
	d.showRequest(f, x)
	f.Advice = []Advice{{OnBalancer, "Put both ports into one affinity group; on other balancers it is called persistence across services, port following or a persistency group.", []string{checkBalancer, "aovlb explain " + d.c.client.Addr().String()}}}
	return f
}

func (d *diagnosis) stalled(x *round, answered int) *Finding {
	f := d.finding(FindingAuthStalled, SeverityError, "the gateway stopped answering during authentication",
		"The gateway answered %d of the client's IKE_AUTH requests, and then no more. Packets of this size pass, so it is the gateway that doesn't come to an answer: most often it waits for NPS (RADIUS), which is down, doesn't know the gateway or its secret, or lost a fragment of a large EAP message.", answered)
	f.Windows = []string{"809", "812", "718"}
	d.showRequest(f, x)
	f.Advice = []Advice{
		{OnBalancer, "Ask the NPS servers as a gateway would.", []string{"aovlb probe radius --secret-file FILE NPS"}},
		{OnNPS, "See what NPS has rejected, and whether the gateway is among its RADIUS clients.", []string{showRejections, `Get-NpsRadiusClient`}},
	}
	return f
}

// fragmentsLost explains an IKE_AUTH message that never came whole, or was sent in
// IP fragments and not answered.
func (d *diagnosis) fragmentsLost(x *round, r *flight, by string) *Finding {
	n := r.fragments.Total()
	if n > 0 && !r.fragments.Whole() && r.incomplete == 0 {
		f := d.finding(FindingIKEFragmentsMissing, SeverityError, "fragments of IKE_AUTH are lost",
			"The %s sent IKE_AUTH in %d IKE fragments of up to %d octets, of which %s never came. Something on the way drops datagrams of that size.", by, n, r.largest, r.fragments.Missing())
		f.Windows = []string{"809"}
		d.showRequest(f, x)
		if x.response.seen() {
			d.showResponse(f, x)
		}
		f.Advice = []Advice{
			{OnClient, "Measure what the way to the gateway takes.", []string{testPath}},
			{OnNetwork, "Let datagrams of that size pass, or have the " + by + " make smaller fragments: Windows makes them of 500 to 600 octets, strongSwan of charon.fragment_size.", nil},
		}
		return f
	}
	what := fmt.Sprintf("The %s sent IKE_AUTH of %d octets in %d IP fragments, and no answer came: most likely a firewall, NAT router or balancer on the way drops fragments, as only the first has ports.", by, max(r.octets, r.largest), r.ipFragments)
	if r.incomplete > 0 {
		what = fmt.Sprintf("The %s sent IKE_AUTH in IP fragments, and only some of them came here, however often it was sent: a firewall, NAT router or balancer on the way drops fragments, as only the first has ports. Missing are octets %s.", by, r.missing)
	}
	f := d.finding(FindingAuthIPFragments, SeverityError, "IKE_AUTH is too large for one packet, and its IP fragments are lost", "%s IKE fragmentation would avoid them: %s.", what, d.fragmentationText())
	f.Windows = []string{"809"}
	d.showRequest(f, x)
	if x.response.seen() {
		d.showResponse(f, x)
	}
	if !d.c.fragmentation[sideGateway] {
		f.Advice = append(f.Advice, adviseServerFragmentation())
	}
	if !d.c.fragmentation[sideClient] {
		f.Advice = append(f.Advice, adviseClientFragmentation())
	}
	f.Advice = append(f.Advice, adviseSmallerMessages(), adviseLetFragmentsPass())
	return f
}

// authAnswered judges a handshake whose last IKE_AUTH was answered, without proof
// of a tunnel.
func (d *diagnosis) authAnswered(x *round) {
	c := d.c
	after := c.exchanges[len(c.exchanges)-1]
	settled := d.quiet(x.response.last) || c.restarted || after.kind == ExchangeInformational && after.answered()
	switch {
	case x.response.refuses:
		d.fail(d.authRefused(x))
	case !settled || x.kind != ExchangeAuth:
	case x.response.octets < minFinalAuth && !d.asksFirst(x):
		d.fail(d.authRefused(x))
	case x.response.inside == PayloadEAP:
		if after != x || d.blind || d.end.Sub(x.response.last) >= idleTunnel || c.restarted {
			d.fail(d.eapStopped(x, after))
		}
	case d.clientGaveUp(x, after):
		f := d.finding(FindingClientStopped, SeverityError, "the client broke off after the gateway's answer",
			"The gateway answered IKE_AUTH by %d octets, and the client made nothing of it. A client does so when it doesn't trust the gateway's certificate: its root is unknown or it is revoked, it isn't for the name that the client dialled, or it lacks the usage Server Authentication.", x.response.size())
		f.Windows = []string{"13801"}
		d.showResponse(f, x)
		if after.kind == ExchangeInformational {
			d.show(f, after.request.first, after.request.packet, "%s", d.describe(after, &after.request, false))
		}
		f.Advice = []Advice{
			{OnClient, "See what the client says of it.", []string{showRasErrors}},
			{OnGateway, "See that the gateway has one valid certificate for the name that clients dial, for Server Authentication (and IP security IKE intermediate), issued by a root that clients trust.", []string{showMachineCerts}},
		}
		d.fail(f)
	case d.neverUsed(x, after):
		d.fail(d.unused(x, after))
	default:
		d.outcome = OutcomeEstablished
	}
}

// asksFirst reports whether the answer in x is EAP's first question: the gateway knows
// no more of the client than its name, so what is longer than a Failure asks for
// something. Later ones can't be told from refusals, as EAP-MSCHAPv2 has its own.
func (d *diagnosis) asksFirst(x *round) bool {
	return x.response.inside == PayloadEAP && d.stepsOfEAP() == 1 && x.response.octets > d.longestVerdict()
}

func (d *diagnosis) stepsOfEAP() int {
	return d.c.count(func(x *round) bool { return x.kind == ExchangeAuth && x.response.inside == PayloadEAP })
}

// longestVerdict returns how many octets an IKE_AUTH response has at the most that
// holds nothing but EAP's Success or Failure, which are of four octets (RFC 3748
// §4.2).
func (d *diagnosis) longestVerdict() int {
	const marker, vector, padded = 4, 16, 16 // the longest that there are
	check := 16                              // of ciphers that have their own, and of SHA2-256
	for _, t := range d.c.suite.Transforms {
		if t.Type != TransformInteg {
			continue
		}
		switch t.ID {
		case IntegNone, IntegHMACSHA256:
		case IntegHMACSHA1:
			check = 12
		case IntegHMACSHA384:
			check = 24
		default:
			check = 32
		}
	}
	return marker + HeaderLen + payloadHeaderLen + vector + padded + check
}

// eapStopped explains a handshake that ends with a step of EAP. That step can't
// have made a tunnel: after the last one client and gateway still exchange AUTH
// (RFC 7296 §2.16), and what an encrypted message begins with can be read.
func (d *diagnosis) eapStopped(x, after *round) *Finding {
	f := d.finding(FindingEAPStopped, SeverityError, "the client broke off during EAP",
		"The gateway's last answer was step %d of EAP, of %d octets, and the client made nothing of it. With PEAP and EAP-TLS a client does so when it doesn't trust the certificate of NPS: its root is unknown, or it isn't for one of the names in the profile. It also does when its user closes the window that asks for a password or a second factor.", d.stepsOfEAP(), x.response.size())
	d.showResponse(f, x)
	if after != x {
		d.show(f, after.request.first, after.request.packet, "%s", d.describe(after, &after.request, false))
	}
	f.Advice = []Advice{
		{OnClient, "See what the client says of it.", []string{showRasErrors}},
		{OnNPS, "See that NPS shows a certificate whose root and name the profile allows, and what it has logged.", []string{showRejections, showMachineCerts}},
	}
	return f
}

// neverUsed reports whether what IKE_AUTH made was given up at once: after its last
// answer there is a single exchange, which begins with Delete, or with a Notify of
// the client; or one, such as news of a client's addresses, and then a Delete. So it
// is known of nobody who has used the tunnel, or kept asking whether it lives. Where
// ESP isn't seen, somebody else must know that there was none.
func (d *diagnosis) neverUsed(x, after *round) bool {
	if d.c.esp != [2]uint64{} || d.blind && d.carried() {
		return false
	}
	n := d.c.count(func(y *round) bool { return y.kind == ExchangeInformational })
	if n < 1 || n > 2 || after.kind != ExchangeInformational || after.request.first.Sub(x.response.first) > neverUsedWithin {
		return false
	}
	return after.request.inside == PayloadDelete || n == 1 && after.request.inside == PayloadNotify && after.by == sideClient
}

// carried reports whether the tunnel was used, as far as anybody knows: if nobody
// does, it was.
func (d *diagnosis) carried() bool {
	if d.seen == nil {
		return true
	}
	yes, known := d.seen(d.c.sas[0].spi)
	return yes || !known
}

func (d *diagnosis) unused(x, after *round) *Finding {
	f := d.finding(FindingNeverUsed, SeverityError, "the tunnel was given up at once, unused",
		"The gateway's last answer to IKE_AUTH, of %d octets, is one that accepts credentials. %v later the %v ended the SA, and no packet of the client was seen in a tunnel. What the two said is encrypted. Often the gateway accepts the client but makes no tunnel, because they have no algorithms for ESP in common or it has no address left for it; or the client doesn't accept what it got.",
		x.response.size(), after.request.first.Sub(x.response.first).Round(time.Millisecond), after.by)
	d.showResponse(f, x)
	d.show(f, after.request.first, after.request.packet, "%s", d.describe(after, &after.request, false))
	f.Advice = []Advice{
		{OnGateway, "See that the algorithms for ESP are those of the clients (CipherTransformConstants, AuthenticationTransformConstants), and that addresses are left for them.", []string{showPolicyServer, `Get-RemoteAccess | Format-List *Address*`}},
		{OnClient, "See what the client says of it, and its algorithms.", []string{showRasErrors, showPolicyClient}},
	}
	return f
}

// clientGaveUp reports whether a client made nothing of the gateway's last IKE_AUTH
// response, which shows a certificate: it says so by a Notify, or, if the gateway
// still waits for EAP, by whatever isn't that.
//
// Where ESP can't be seen, a client that hangs up at once looks the same. Only one
// that has just been shown the gateway's certificate by EAP, and should go on, is
// told from it: by its request, which is short of a certificate of its own.
func (d *diagnosis) clientGaveUp(x, after *round) bool {
	rounds := d.c.count(func(x *round) bool { return x.kind == ExchangeAuth })
	bare := rounds == 1 && x.request.octets <= maxBareAuth
	complains := after.kind == ExchangeInformational && after.by == sideClient &&
		after.request.first.Sub(x.response.first) < time.Second &&
		(after.request.inside == PayloadNotify || bare && after.request.inside == PayloadDelete) &&
		d.c.count(func(x *round) bool { return x.kind == ExchangeInformational }) == 1
	if d.blind {
		return bare && (complains || after == x)
	}
	return complains || after == x && d.end.Sub(x.response.last) >= idleTunnel
}

func (d *diagnosis) authRefused(x *round) *Finding {
	rounds := d.c.count(func(x *round) bool { return x.kind == ExchangeAuth && x.answered() })
	what := "The gateway answered IKE_AUTH by %d octets, too few to make a tunnel: it refused the client. Why is encrypted. "
	f := d.finding(FindingAuthRefused, SeverityError, "the gateway refused the client's credentials", what, x.response.size())
	f.Windows = []string{"13801", "13806", "691", "812", "853"}
	if rounds > 1 {
		f.What += fmt.Sprintf("It was step %d of EAP, so NPS has logged the reason: a wrong user name or password, a certificate that it doesn't accept, or a policy that doesn't let the user in.", rounds)
		f.Windows = []string{"691", "812", "853"}
	} else {
		f.What += "It was the only step, so the client showed a certificate, or none: it is expired or revoked, isn't from the root that the gateway asks for, or lacks the usage Client Authentication."
		f.Windows = []string{"13801", "13806"}
	}
	d.showRequest(f, x)
	d.showResponse(f, x)
	if rounds > 1 {
		f.Advice = []Advice{{OnNPS, "See why NPS rejected it.", []string{showRejections}}}
	} else {
		f.Advice = []Advice{
			{OnClient, "See that the client has a valid certificate for Client Authentication.", []string{showMachineCerts}},
			{OnGateway, "See which root RRAS asks for.", []string{`Get-VpnAuthProtocol | Format-List`}},
		}
	}
	return f
}

// established looks at what happened to a tunnel.
func (d *diagnosis) established() {
	c := d.c
	x := c.exchanges[len(c.exchanges)-1]
	for _, y := range c.exchanges {
		if y.kind != ExchangeSAInit && y.kind != ExchangeAuth && d.unanswered(y) && !y.response.seen() {
			x = y
		}
	}
	if x.kind == ExchangeSAInit || x.kind == ExchangeAuth || !d.unanswered(x) || !d.inVain(x) {
		return
	}
	silent := x.by.other()
	switch {
	case len(c.moves) > 0 && x.request.first.After(c.moves[len(c.moves)-1].at.Add(-time.Millisecond)) && x.by == sideClient:
		m := c.moves[len(c.moves)-1]
		f := d.finding(FindingMoveLost, SeverityError, "the client moved, and nobody knew it there",
			"The client's address changed from %v to %v. What it sends from there isn't answered: a balancer that goes by addresses sends it to another gateway.", m.from.Addr(), m.to.Addr())
		d.show(f, m.at, m.packet, "comes from %v", m.to)
		d.showRequest(f, x)
		f.Advice = []Advice{{OnBalancer, "Use affinity by SPI (affinity: protocol), which follows a client wherever it goes.", []string{"aovlb explain " + d.c.sas[0].spi.String()}}}
		d.add(f)
	case silent == sideGateway:
		f := d.finding(FindingGatewaySilent, SeverityError, "the gateway stopped answering",
			"The tunnel was up. Then the client's %v request was sent %d times and not answered: the gateway is down or was restarted, something on the way forgot the flow, or a balancer sent it elsewhere.", x.kind, max(x.request.times, x.request.incomplete))
		d.showRequest(f, x)
		f.Advice = []Advice{adviseListening(), {OnBalancer, "See where the client is, and what the balancer knows of the gateways.", []string{checkBalancer, "aovlb explain " + c.client.Addr().String()}}}
		d.add(f)
	default:
		f := d.finding(FindingClientSilent, SeverityWarning, "the client stopped answering",
			"The tunnel was up. Then the gateway's %v request was sent %d times and not answered: the client is off or out of reach, which is nobody's fault, or a NAT router on its side forgot the flow because no keepalives came.", x.kind, max(x.request.times, x.request.incomplete))
		d.showRequest(f, x)
		f.Advice = []Advice{{OnNetwork, "NAT routers must keep UDP mappings for longer than a minute: Windows sends keepalives every 20 seconds.", nil}}
		d.add(f)
	}
}

// inVain reports whether nothing of the other side came after x was first sent.
func (d *diagnosis) inVain(x *round) bool {
	for _, y := range d.c.exchanges {
		f := &y.response
		if y.by != x.by {
			f = &y.request
		}
		if f.seen() && f.last.After(x.request.first) {
			return false
		}
	}
	return true
}
