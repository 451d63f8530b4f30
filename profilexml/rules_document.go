package profilexml

import (
	"fmt"
	"slices"
	"strings"
)

// syntaxRuleID is the rule for files that can't be read.
const syntaxRuleID = "AOV001"

// documentRules are about the file.
func documentRules() []Rule {
	return []Rule{
		{
			ID: syntaxRuleID, Severity: Error, Title: "The file is not well-formed XML",
			Why:    "Windows answers \"a general error occurred that is not covered by a more specific error code\", and Intune 0x87d101f4, without saying where.",
			Remedy: "Correct what stands at the position named. The usual causes are an & that isn't written &amp;, an end tag that is missing, and a file that was cut off.",
			run:    func(*check) {}, // found by reading
		},
		{
			ID: "AOV002", Severity: Warning, Title: "The file isn't plain UTF-8", Fixable: true,
			Why:    "Out-File of Windows PowerShell writes UTF-16, and other tools a byte order mark. MDM takes neither, and scripts that read the file by another encoding break every character outside ASCII.",
			Remedy: "Save the file as UTF-8 without a byte order mark.",
			run:    checkEncoding,
		},
		{
			ID: "AOV003", Severity: Warning, Title: "There is an XML declaration or another instruction", Fixable: true,
			Why:    "A profile is embedded in other XML on its way, where a declaration in the middle is an error; Windows doesn't read it back, so that Intune sees a difference.",
			Remedy: "Remove the line that begins with <?xml.",
			run:    checkInstructions,
		},
		{
			ID: "AOV004", Severity: Warning, Title: "There is a comment", Fixable: true,
			Why:    "Windows doesn't keep comments. Intune on Windows 11 compares what it sent with what Windows reads back, and applies the profile again and again.",
			Remedy: "Keep the file with comments for yourself, and deliver one without them.",
			run:    checkComments,
		},
		{
			ID: "AOV005", Severity: Error, Title: "Text stands between elements", Fixable: true,
			Why:    "It belongs to no element. Often it is the rest of something that was edited, such as the second > of -->>, or quotation marks of a script.",
			Remedy: "Remove it.",
			visit:  checkStrayText,
		},
		{
			ID: "AOV006", Severity: Error, Title: "The outermost element isn't VPNProfile", Fixable: true,
			Why:    "Windows looks for <VPNProfile>, in this spelling and without a namespace, and ignores what it doesn't find.",
			Remedy: "Make <VPNProfile> the outermost element. SyncML or a script around it isn't part of the profile.",
			run:    checkRoot,
		},
	}
}

// elementRules are about which elements are where.
func elementRules() []Rule {
	return []Rule{
		{
			ID: "AOV007", Severity: Error, Title: "An element is unknown",
			Why:    "Windows ignores what it doesn't know, or refuses the whole profile; either way it doesn't do what was meant.",
			Remedy: "Correct the name or remove the element.",
			visit:  checkUnknown,
		},
		{
			ID: "AOV008", Severity: Error, Title: "The name of an element is in the wrong case", Fixable: true,
			Why:    "Names of elements are compared letter by letter. Windows ignores one whose capitals differ.",
			Remedy: "Write the name as the reference does.",
			visit:  checkNameCase,
		},
		{
			ID: "AOV009", Severity: Error, Title: "An element has the name that something else uses for it", Fixable: true,
			Why:    "The nodes of the CSP and the parameters of PowerShell are called differently from the elements of ProfileXML in places, such as DomainNameInformationList and Prefix.",
			Remedy: "Use the name that ProfileXML has.",
			visit:  checkAlias,
		},
		{
			ID: "AOV010", Severity: Error, Title: "An element is in the wrong place", Fixable: true,
			Why:    "Windows ignores an element that it doesn't expect where it is. DisableClassBasedDefaultRoute in CryptographySuite is a published example.",
			Remedy: "Move it into the element that it belongs to.",
			visit:  checkMisplaced,
		},
		{
			ID: "AOV011", Severity: Error, Title: "There is an attribute that means nothing", Fixable: true,
			Why:    "Elements of a profile have no attributes and no namespace, except in EAP. Windows refuses attributes such as i:nil with \"an attempt was made to load a program with an incorrect format\".",
			Remedy: "Remove it.",
			visit:  checkAttributes,
		},
		{
			ID: "AOV012", Severity: Error, Title: "An element is there twice",
			Why:    "One of the two is ignored, and nobody says which. Several addresses in one Route are a common form of it: each network needs a Route of its own.",
			Remedy: "Remove one, or give each an element of its own around it.",
			visit:  checkRepeated,
		},
		{
			ID: "AOV013", Severity: Error, Title: "An element is missing",
			Why:    "The element around it makes no sense without it, and Windows refuses the profile or leaves that part out.",
			Remedy: "Add it.",
			visit:  checkRequired,
		},
		{
			ID: "AOV014", Severity: Warning, Title: "An element is empty", Fixable: true,
			Why:    "Generators leave empty elements for what isn't set. Windows takes some for values, and refuses others.",
			Remedy: "Remove the element, or give it a value.",
			visit:  checkEmpty,
		},
		{
			ID: "AOV015", Severity: Warning, Title: "An element is newer than the oldest Windows it is for",
			Why:    "Older releases refuse the profile or ignore the element. The date is that of public builds: the reference dates several to Windows 11 21H2 that work from 24H2 on.",
			Remedy: "Leave it out for older clients, or raise the release that is checked for. Interface metrics, NetworkOutageTime and UseRasCredentials can be set in the phonebook instead.",
			visit:  checkSince,
		},
		{
			ID: "AOV016", Severity: Warning, Title: "The order isn't that in which Windows reads the profile back", Fixable: true,
			Why:    "Windows takes any order, but Intune on Windows 11 compares what it sent with what Windows reads back, and applies the profile again and again, or reports an error, if they differ.",
			Remedy: "Put the elements into the order of reading back.",
			visit:  checkOrder,
		},
		{
			ID: "AOV024", Severity: Error, Title: "An element belongs to the other scope",
			Why:    "DeviceTunnel and LockDown are nodes of ./Device, and RequireVpnClientAppUI is one of ./User. Elsewhere they are refused.",
			Remedy: "Deliver the profile to the other scope, or remove the element.",
			visit:  checkScope,
		},
	}
}

func checkEncoding(k *check) {
	if k.doc.Encoding == UTF8 {
		return
	}
	severity := Warning
	if k.Channel == Intune {
		severity = Error
	}
	k.add(0, nil, severity, nil, "the file is %v", k.doc.Encoding)
	k.findings[len(k.findings)-1].reencode = true
}

func checkInstructions(k *check) {
	severity := Warning
	if k.Channel == WMI {
		severity = Info
	}
	for _, n := range k.doc.asides {
		if n.Kind == InstructionNode {
			k.add(n.Start, nil, severity, k.remove(n), "<?%s …?> is not part of a profile", n.Local)
		}
	}
}

func checkComments(k *check) {
	severity, only := Warning, k.Channel == Intune
	if !only {
		severity = Info
	}
	for _, n := range k.doc.asides {
		switch {
		case n.Kind != CommentNode:
		case only:
			k.add(n.Start, nil, severity, k.remove(n), "a comment isn't kept, and Intune sees a difference")
		default:
			k.add(n.Start, nil, severity, nil, "a comment isn't kept")
		}
	}
}

// eachNode calls f for nodes and all in them.
func eachNode(list []*Node, f func(*Node)) {
	for _, n := range list {
		f(n)
		eachNode(n.Children, f)
	}
}

func checkStrayText(k *check, n *Node) {
	mixed := n.hasElements()
	if n.spec == nil || n.spec.Type != Group || n.spec.Name == "Configuration" && !mixed {
		return
	}
	for _, c := range n.Children {
		if c.Kind != TextNode && c.Kind != CDATANode {
			continue
		}
		raw := k.doc.Text[c.Start:c.End]
		if isBlank(raw) {
			continue
		}
		trimmed := strings.Trim(raw, " \t\r\n")
		at := c.Start + strings.Index(raw, trimmed)
		var fix []Edit
		if mixed && len(trimmed) <= 2 {
			fix = []Edit{{at, at + len(trimmed), ""}}
		}
		k.add(at, n, Error, fix, "%.30q is text between elements", trimmed)
	}
}

// isBlank reports whether there is nothing but white space.
func isBlank(s string) bool {
	for i := range len(s) {
		if !isSpace(s[i]) {
			return false
		}
	}
	return true
}

func checkRoot(k *check) {
	n := k.doc.Root
	switch {
	case n.spec != nil:
	case n.Local == contentTable.Name:
		var fix []Edit
		if a := n.Attr("xmlns"); a != nil && n.Prefix == "" {
			fix = removeAttr(k.doc, a)
		}
		k.report(n, fix, "<%s> is in the namespace %q, and must be in none", n.Name(), n.Space)
	case strings.EqualFold(n.Local, contentTable.Name) && n.Space == "":
		k.report(n, k.rename(n, contentTable.Name), "<%s> must be written <VPNProfile>", n.Name())
	default:
		k.report(n, nil, "a profile begins with <VPNProfile>, and this with <%s>", n.Name())
	}
}

// removeAttr takes an attribute out, with the space before it.
func removeAttr(d *Document, a *Attr) []Edit {
	start := a.Start
	for start > 0 && isSpace(d.Text[start-1]) {
		start--
	}
	return []Edit{{start, a.End, ""}}
}

// stranger returns the entry of n's parent if n isn't known there and the parent
// is a group that is known.
func stranger(n *Node) *Element {
	if n.spec != nil || n.Parent == nil || n.Parent.spec == nil || n.Parent.spec.Type == Opaque {
		return nil
	}
	return n.Parent.spec
}

// aliases are names that others use for elements of ProfileXML.
var aliases = map[string]string{
	"DomainNameInformationList": "DomainNameInformation", "RouteList": "Route", "TrafficFilterList": "TrafficFilter", "AppTriggerList": "AppTrigger",
	"NativeProtocolList": "NativeProtocol", "Prefix": "PrefixSize", "PrefixLength": "PrefixSize", "DestinationPrefix": "Address",
	"ServerAddress": "Servers", "Server": "Servers", "ServerList": "Servers", "TunnelType": "NativeProtocolType", "IPv4Metric": "IPv4InterfaceMetric",
	"DnsServer": "DnsServers", "NameServers": "DnsServers", "RouteMetric": "Metric", "DnsSuffixes": "DnsSuffix", "TrustedNetworks": "TrustedNetworkDetection",
}

// likely returns what a stranger was probably meant to be.
func likely(n *Node) (e *Element, how string) {
	parent := stranger(n)
	if parent == nil || n.Space != parent.Space && !(parent.Space == "" && n.Space == "") {
		return nil, ""
	}
	for _, c := range parent.Children {
		if strings.EqualFold(c.Name, n.Local) && c.Space == n.Space {
			return c, "case"
		}
	}
	if c := parent.child(aliases[n.Local], n.Space); c != nil {
		return c, "alias"
	}
	return nil, ""
}

// fits reports whether another element e can be in the parent of n.
func (k *check) fits(n *Node, e *Element) bool { return e.Repeats || !k.holds(n.Parent, e.Name) }

// holds reports whether an element of that name is in n.
func (k *check) holds(n *Node, name string) bool {
	names, ok := k.named[n]
	if !ok {
		names = make(map[string]struct{}, len(n.Children))
		for _, c := range n.Children {
			if c.Kind == ElementNode {
				names[c.Local] = struct{}{}
			}
		}
		if k.named == nil {
			k.named = map[*Node]map[string]struct{}{}
		}
		k.named[n] = names
	}
	_, ok = names[name]
	return ok
}

func checkNameCase(k *check, n *Node) {
	if e, how := likely(n); how == "case" {
		var fix []Edit
		if k.fits(n, e) {
			fix = k.rename(n, e.Name)
		}
		k.report(n, fix, "<%s> must be written <%s>", n.Name(), e.Name)
	}
}

func checkAlias(k *check, n *Node) {
	if e, how := likely(n); how == "alias" {
		var fix []Edit
		if k.fits(n, e) {
			fix = k.rename(n, e.Name)
		}
		k.report(n, fix, "<%s> is called <%s> in ProfileXML", n.Name(), e.Name)
	}
}

// elsewhere are the places where the table has an element of n's name, which it
// hasn't where n is.
func elsewhere(n *Node) []*Element {
	if stranger(n) == nil || n.Space != "" {
		return nil
	}
	if _, how := likely(n); how != "" {
		return nil
	}
	return byLocalName[n.Local]
}

func checkMisplaced(k *check, n *Node) {
	places := elsewhere(n)
	switch len(places) {
	case 0:
	case 1:
		fix := k.move(n, places[0])
		if !n.hasElements() && k.text(n) == "" {
			fix = k.remove(n) // for it is no more use there
		}
		before := len(k.findings)
		k.report(n, fix, "<%s> is in <%s>, and belongs into <%s>", n.Name(), n.Parent.Name(), places[0].parent.Name)
		if len(k.findings) > before {
			k.findings[before].stacks = places[0].Repeats
		}
	default:
		var names []string
		for _, p := range places {
			names = append(names, "<"+p.parent.Name+">")
		}
		k.report(n, nil, "<%s> can't be in <%s>: it belongs into %s", n.Name(), n.Parent.Name(), strings.Join(names, " or "))
	}
}

// move puts n where e belongs, if that is there, and has room.
func (k *check) move(n *Node, e *Element) []Edit {
	if k.homes == nil {
		k.homes = map[*Element][]*Node{}
		eachNode([]*Node{k.doc.Root}, func(m *Node) {
			if m.spec != nil && m.spec.Type == Group {
				k.homes[m.spec] = append(k.homes[m.spec], m)
			}
		})
	}
	homes := k.homes[e.parent]
	if len(homes) != 1 || homes[0].selfClosed() || within(homes[0], n) || !e.Repeats && k.holds(homes[0], e.Name) {
		return nil
	}
	var last *Node
	for _, c := range slices.Backward(homes[0].Children) {
		if c.Kind == ElementNode && c != n {
			last = c
			break
		}
	}
	if last == nil || within(last, n) {
		return nil
	}
	return append(k.remove(n), Edit{last.End, last.End, k.space(last) + k.doc.Text[n.Start:n.End]})
}

// within reports whether inner is n or in it.
func within(inner, n *Node) bool {
	for ; inner != nil; inner = inner.Parent {
		if inner == n {
			return true
		}
	}
	return false
}

func checkUnknown(k *check, n *Node) {
	parent := stranger(n)
	if parent == nil || len(elsewhere(n)) > 0 {
		return
	}
	if _, how := likely(n); how != "" {
		return
	}
	hint := ""
	if near := nearest(n.Local, parent); near != "" {
		hint = fmt.Sprintf(": did you mean <%s>?", near)
	}
	switch {
	case n.Space != parent.Space && parent.child(n.Local, parent.Space) != nil:
		hint = fmt.Sprintf(": its namespace is %q, and must be %q", n.Space, parent.Space)
	case k.wrongEAPSpace(n) != "":
		return // said by the rule for namespaces of EAP
	}
	k.report(n, nil, "<%s> is unknown in <%s>%s", n.Name(), n.Parent.Name(), hint)
}

// nearest returns the name in a group that is most like an unknown one.
func nearest(name string, parent *Element) string {
	best, least := "", 3
	for _, c := range parent.Children {
		if d := distance(strings.ToLower(name), strings.ToLower(c.Name), least); d < least {
			best, least = c.Name, d
		}
	}
	return best
}

// distance is how many letters must change to make b of a, at most limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit || len(a) > 100 {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return min(row[len(b)], limit)
}

func checkAttributes(k *check, n *Node) {
	if n.spec == nil {
		return
	}
	for i := range n.Attrs {
		a := &n.Attrs[i]
		switch {
		case slices.Contains(n.spec.Attrs, a.Name()), n.Space != "" && a.declares(), a.Name() == "xmlns" && a.Value == "":
		case a.declares() && a.Prefix == "xmlns" && k.prefixUsed(n, a.Local):
			k.add(a.Start, n, Error, nil, "%s declares a namespace, and a profile has none", a.Name())
		default:
			k.add(a.Start, n, Error, removeAttr(k.doc, a), "the attribute %s of <%s> means nothing", a.Name(), n.Name())
		}
	}
}

// prefixUsed reports whether a name in n has a prefix.
func (k *check) prefixUsed(n *Node, prefix string) bool {
	used := false
	eachNode([]*Node{n}, func(m *Node) {
		used = used || m.Prefix == prefix || slices.ContainsFunc(m.Attrs, func(a Attr) bool { return a.Prefix == prefix })
	})
	return used
}

func checkRepeated(k *check, n *Node) {
	if n.spec == nil || n.spec.Type != Group {
		return
	}
	var seen [64]bool
	for _, c := range n.Children {
		if c.Kind != ElementNode || c.spec == nil || c.spec.Repeats || c.spec.index >= len(seen) {
			continue
		}
		if seen[c.spec.index] {
			k.report(c, nil, "<%s> is in <%s> more than once", c.Name(), n.Name())
		}
		seen[c.spec.index] = true
	}
}

func checkRequired(k *check, n *Node) {
	if n.spec == nil || n.spec.Type != Group || n.spec.Name == "Configuration" {
		return
	}
	if n.spec.Name == "NativeProfile" && n.child("Authentication") == nil || n.spec.Name != "CryptographySuite" {
		for _, e := range n.spec.Children {
			if e.Required && n.child(e.Name) == nil && !meant(n, e) && !(e.Name == "Eap" && k.text(n.child("Type")) != "") {
				k.report(n, nil, "<%s> has no <%s>", n.Name(), e.Name)
			}
		}
	}
}

// meant reports whether n has e under another name, which is said elsewhere.
func meant(n *Node, e *Element) bool {
	for _, c := range n.Children {
		if c.Kind != ElementNode || c.spec != nil {
			continue
		}
		if other, _ := likely(c); other == e {
			return true
		}
	}
	return false
}

func checkEmpty(k *check, n *Node) {
	if n.spec == nil || n.Space != "" || n.Parent == nil || n.spec.Repeats || n.hasElements() || n.spec.Name == "Configuration" || k.text(n) != "" {
		return
	}
	if n.spec.Required {
		k.add(n.Start, n, Error, nil, "<%s> is empty and needs a value", n.Name())
		return
	}
	k.report(n, k.remove(n), "<%s> is empty", n.Name())
}

func checkSince(k *check, n *Node) {
	if n.spec != nil && n.spec.Since > k.Windows.or() {
		k.report(n, nil, "<%s> needs %v, and this is for %v", n.Name(), n.spec.Since, k.Windows)
	}
}

func checkOrder(k *check, n *Node) {
	if n.spec == nil || n.spec.Type != Group || n.Space != "" || !k.strict() {
		return
	}
	if c, before := misplaced(n); c != nil {
		k.report(c, k.reorder(n), "<%s> stands behind <%s>, and Windows reads it back before", c.Name(), before.Name())
	}
}

// misplaced returns the first element in n that should stand before the one that it
// stands behind; nil if all are in their order.
func misplaced(n *Node) (c, before *Node) {
	for _, c := range n.Children {
		if c.Kind != ElementNode || c.spec == nil {
			continue
		}
		if before != nil && c.spec.index < before.spec.index {
			return c, before
		}
		before = c
	}
	return nil, nil
}

// reorder puts the elements in n into the order of reading back, each with the
// comments that belong to it. The space between them stays.
func (k *check) reorder(n *Node) []Edit {
	f := &formatter{doc: k.doc, trailing: map[*Node]bool{}, style: Style{Order: OrderKeep, Indent: " "}}
	slots := f.units(n)
	f.style.Order = OrderReadback
	sorted := f.units(n)
	var edits []Edit
	for i := range slots {
		from, to := slots[i].span(), sorted[i].span()
		if from != to {
			edits = append(edits, Edit{from[0], from[1], k.doc.Text[to[0]:to[1]]})
		}
	}
	return edits
}

func (u *unit) span() [2]int {
	return [2]int{u.nodes[0].Start, u.nodes[len(u.nodes)-1].End}
}

func checkScope(k *check, n *Node) {
	if n.spec != nil && n.spec.Scope != AnyScope && k.Scope != AnyScope && n.spec.Scope != k.Scope {
		k.report(n, nil, "<%s> is for the %v scope, and the profile goes to the %v scope", n.Name(), n.spec.Scope, k.Scope)
	}
}
