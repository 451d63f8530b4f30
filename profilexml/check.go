package profilexml

import (
	"fmt"
	"slices"
	"strings"
)

// A Severity says how bad a Finding is.
type Severity uint8

const (
	// Info is worth knowing.
	Info Severity = iota
	// Warning is probably not what was meant.
	Warning
	// Error keeps the profile, or a part of it, from working.
	Error
)

func (s Severity) String() string {
	switch s {
	case Info:
		return "info"
	case Warning:
		return "warning"
	case Error:
		return "error"
	}
	return fmt.Sprintf("Severity(%d)", uint8(s))
}

// MarshalText returns the name of the Severity.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// A Rule is something that a profile can get wrong.
type Rule struct {
	// ID names the rule, and doesn't change.
	ID string `json:"id"`
	// Severity is how bad it is, as a rule. Findings may differ.
	Severity Severity `json:"severity"`
	// Title says what is found, in a few words.
	Title string `json:"title"`
	// Why says what comes of it.
	Why string `json:"why"`
	// Remedy says what to do.
	Remedy string `json:"remedy"`
	// Fixable says that [Checker.Fix] can do it, where that is safe.
	Fixable bool `json:"fixable"`

	// One of these looks for it: visit at each element that is in the content
	// table or should be, run once.
	visit func(*check, *Node)
	run   func(*check)
}

// Rules are all rules, by ID.
func Rules() []Rule {
	rules := slices.Concat(
		documentRules(), elementRules(), valueRules(), protocolRules(), gatewayRules(), cryptoRules(), authenticationRules(), eapRules(), eapServerRules(), eapCertificateRules(),
		routeRules(), routeListRules(), proxyRules(), nameRules(), triggerRules(), filterRules(), deviceRules(), besideRules(), pluginRules(), channelRules(),
	)
	slices.SortFunc(rules, func(a, b Rule) int { return strings.Compare(a.ID, b.ID) })
	return rules
}

// An Edit replaces a piece of a document.
type Edit struct {
	// Start and End are offsets in [Document.Text].
	Start int `json:"start"`
	End   int `json:"end"`
	// Text is what comes there.
	Text string `json:"text"`
}

// A Finding is a place where a profile breaks a Rule.
type Finding struct {
	// Rule is the ID of the rule.
	Rule string `json:"rule"`
	// Severity is how bad it is.
	Severity Severity `json:"severity"`
	// Position is where, and Path in which element. Both are zero if the
	// file as a whole is meant.
	Position Position `json:"position"`
	Path     string   `json:"path,omitempty"`
	// Text says what is wrong here.
	Text string `json:"text"`
	// Fix are the edits that set it right; nil if that is not for a program.
	Fix []Edit `json:"fix,omitempty"`

	reencode bool // the fix is another Encoding
	// stacks says that what the fix puts in may have others of its kind before
	// and behind it.
	stacks bool
	rule   *Rule
}

// Fixable reports whether [Checker.Fix] sets it right.
func (f *Finding) Fixable() bool { return len(f.Fix) > 0 || f.reencode }

// Why says what comes of it.
func (f *Finding) Why() string { return f.rule.Why }

// Remedy says what to do.
func (f *Finding) Remedy() string { return f.rule.Remedy }

// String describes the finding in one line.
func (f *Finding) String() string {
	s := f.Severity.String() + " " + f.Rule + ": " + f.Text
	if f.Position.Line > 0 {
		s = f.Position.String() + ": " + s
	}
	return s
}

// maxFindings bounds what is said of one profile.
const maxFindings = 2000

// A Checker looks for what is wrong with profiles. The zero Checker judges for
// the newest Windows and for Intune. It may be used by many goroutines at once.
type Checker struct {
	// Windows is the oldest release that the profile must work on; 0 means the
	// newest.
	Windows Windows
	// Channel is how the profile gets to clients.
	Channel Channel
	// Scope is whose the profile is.
	Scope Scope
	// Name is what the profile is called; empty if that isn't known.
	Name string
	// Server are the policies that gateways have. A profile must meet all of
	// them, for a client may come to any gateway.
	Server []Suite
	// Negotiate, if it isn't nil, is asked whether the gateways take a suite,
	// such as by asking one. The error says why not, and is what the
	// finding says.
	Negotiate func(Suite) error
	// Beside are the other profiles on the same computers.
	Beside []*Document
	// Ignore are the IDs of rules that aren't wanted.
	Ignore []string
}

// CheckBytes checks a file. The Document is nil if it can't be read, and the
// finding says why.
func (c *Checker) CheckBytes(b []byte) (*Document, []Finding) {
	d, err := Parse(b)
	if err != nil {
		rules := Rules()
		f := Finding{Rule: syntaxRuleID, Severity: Error, Text: err.Error()}
		f.rule = &rules[slices.IndexFunc(rules, func(r Rule) bool { return r.ID == syntaxRuleID })]
		if s, ok := err.(*SyntaxError); ok {
			f.Position, f.Text = s.Position, s.Text
		}
		return nil, []Finding{f}
	}
	return d, c.Check(d)
}

// Check returns what is wrong with a document, in the order of the text.
func (c *Checker) Check(d *Document) []Finding {
	return c.check(d, maxFindings)
}

// check is Check, with that many findings at most; 0 is no limit.
func (c *Checker) check(d *Document, most int) []Finding {
	rules := Rules()
	k := newCheck(c, d)
	k.most = most
	for i := range rules {
		r := &rules[i]
		switch {
		case slices.Contains(c.Ignore, r.ID):
		case r.visit != nil:
			k.visitors = append(k.visitors, r)
		case r.run != nil:
			k.rule = r
			r.run(k)
		}
	}
	k.walk(d.Root)
	slices.SortStableFunc(k.findings, func(a, b found) int { return a.at - b.at })
	list := make([]Finding, len(k.findings))
	for i, f := range k.findings {
		f.Position = d.Position(f.at)
		list[i] = f.Finding
	}
	return list
}

// check is one document being checked.
type check struct {
	*Checker
	doc    *Document
	root   *Node // nil if it is no VPNProfile
	native *Node // NativeProfile
	auth   *Node // its Authentication
	suite  *Node // its CryptographySuite
	routes []routeEntry
	// inclusions counts the routes that lead into the VPN.
	inclusions int
	filters    []*Node
	names      []*Node // DomainNameInformation
	eap        eapNodes
	rule       *Rule
	visitors   []*Rule
	findings   []found
	most       int // findings; 0 is no limit

	paths paths
	homes map[*Element][]*Node          // where the elements are that misplaced ones belong into
	named map[*Node]map[string]struct{} // the names of the children of elements that were asked about
}

// found is a Finding and its offset.
type found struct {
	Finding
	at int
}

func newCheck(c *Checker, d *Document) *check {
	k := &check{Checker: c, doc: d}
	if d.Root.spec == nil {
		return k
	}
	k.root = d.Root
	k.native = k.root.child("NativeProfile")
	k.auth, k.suite = k.native.child("Authentication"), k.native.child("CryptographySuite")
	k.filters, k.names = k.root.all("TrafficFilter"), k.root.all("DomainNameInformation")
	k.readRoutes()
	k.eap = d.findEAP(k.auth.at("Eap/Configuration/EapHostConfig"))
	return k
}

func (k *check) walk(n *Node) {
	if k.full() {
		return
	}
	for _, r := range k.visitors {
		k.rule = r
		r.visit(k, n)
	}
	if n.spec == nil && n.Parent != nil {
		return // only the outermost unknown element is named
	}
	for _, c := range n.Children {
		if c.Kind == ElementNode {
			k.walk(c)
		}
	}
}

// report adds a finding about an element.
func (k *check) report(n *Node, fix []Edit, format string, args ...any) {
	k.add(n.Start, n, k.rule.Severity, fix, format, args...)
}

// reportValue adds a finding about the value of an element.
func (k *check) reportValue(n *Node, fix []Edit, format string, args ...any) {
	at := n.OpenEnd
	if v := k.doc.inner(n); v != "" {
		at += len(v) - len(strings.TrimLeft(v, " \t\r\n"))
	}
	k.add(min(at, n.CloseStart), n, k.rule.Severity, fix, format, args...)
}

func (k *check) add(at int, n *Node, s Severity, fix []Edit, format string, args ...any) {
	if k.full() {
		return
	}
	f := Finding{Rule: k.rule.ID, Severity: s, Text: fmt.Sprintf(format, args...), Fix: fix, rule: k.rule}
	if n != nil {
		f.Path = k.paths.of(n)
	}
	k.findings = append(k.findings, found{f, at})
}

// text returns the trimmed value of an element, "" if there is none.
func (k *check) text(n *Node) string { return k.doc.text(n) }

// is reports whether the value of an element is v, in any case.
func (k *check) is(n *Node, v string) bool { return n != nil && strings.EqualFold(k.text(n), v) }

// isTrue reports whether Windows would take an element for true.
func (k *check) isTrue(n *Node) bool {
	v, ok := boolean(k.text(n))
	return n != nil && v && ok
}

// items returns the items of a list, trimmed, without empty ones.
func (k *check) items(n *Node, separator string) []string {
	var list []string
	for s := range strings.SplitSeq(k.text(n), separator) {
		if s = strings.TrimSpace(s); s != "" {
			list = append(list, s)
		}
	}
	return list
}

// protocol returns NativeProtocolType as Windows writes it.
func (k *check) protocol() string {
	n := k.native.child("NativeProtocolType")
	if n == nil || n.spec == nil {
		return ""
	}
	return n.spec.canonical(k.text(n))
}

// protocols returns all protocols that may be used, as NativeProtocolType
// writes them.
func (k *check) protocols() []string {
	switch p := k.protocol(); p {
	case "":
		return nil
	case "Automatic":
		return []string{"SSTP", "IKEv2", "PPTP", "L2TP"}
	case "ProtocolList":
		var list []string
		for _, n := range k.native.child("ProtocolList").all("NativeProtocol") {
			list = append(list, k.native.spec.child("NativeProtocolType", "").canonical(k.text(n.child("Type"))))
		}
		return list
	default:
		return []string{p}
	}
}

// forces reports whether all traffic goes through the VPN.
func (k *check) forces() bool { return k.is(k.native.child("RoutingPolicyType"), "ForceTunnel") }

// isDevice reports whether it is a device tunnel.
func (k *check) isDevice() bool { return k.isTrue(k.root.child("DeviceTunnel")) }

// alwaysOn reports whether the profile connects by itself.
func (k *check) alwaysOn() bool {
	return k.isTrue(k.root.child("AlwaysOn")) || k.isDevice() || k.isTrue(k.root.child("LockDown"))
}

// strict reports whether the profile is compared with what Windows reads back.
func (k *check) strict() bool { return k.Channel == Intune && k.Windows.is11() }

// full reports whether enough has been found.
func (k *check) full() bool { return k.most > 0 && len(k.findings) >= k.most }
