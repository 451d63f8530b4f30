package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/ikev2"
)

var cryptoCommand = command{
	name: "crypto", usage: "policies|assess|negotiate|powershell|profilexml …",
	short: "predict, grade and write IPsec policies of Windows", run: runCrypto,
}

// cryptoUsage is said when somebody asks for help, or errs.
const cryptoUsage = `aovlb crypto policies                    the policies known by name
aovlb crypto assess POLICY               what is good and bad about it, and what to do
aovlb crypto negotiate CLIENT SERVER     which algorithms they agree on, or why none
aovlb crypto powershell server POLICY    commands for an RRAS server
aovlb crypto powershell client POLICY    commands for a client: --connection NAME
aovlb crypto profilexml POLICY           the CryptographySuite of ProfileXML

A POLICY, CLIENT or SERVER is one of
  a name                                 windows-11, rras, standard, enhanced …
  six values of Windows, in the order of PowerShell's documentation
    (authentication transform, cipher transform, encryption, integrity, DH group, PFS group)
                                         GCMAES128,GCMAES128,GCMAES128,SHA256,Group14,ECP256
  changes to a name or to six values     enhanced,DHGroup=ECP384,PfsGroup=ECP384
  proposals for IKE, and after a slash for ESP, as strongSwan spells them
                                         aes256-sha256-modp2048/aes256gcm16
"default" instead of POLICY after powershell takes a custom policy away again.
`

func runCrypto(ctx context.Context, env *environment, args []string) error {
	subs := map[string]func(*environment, []string) error{
		"policies": runPolicies, "assess": runAssess, "negotiate": runNegotiate, "powershell": runPowerShell, "profilexml": runSuiteXML,
	}
	if len(args) > 0 {
		switch args[0] {
		case "-h", "-help", "--help", "help":
			fmt.Fprint(env.stdout, cryptoUsage)
			return nil
		}
		if f, ok := subs[args[0]]; ok {
			return f(env, args[1:])
		}
	}
	return &usageError{"say what to do:\n" + cryptoUsage}
}

// parsePolicy reads what cryptoUsage calls a policy.
func parsePolicy(s string) (ikev2.Policy, error) {
	first, rest, _ := strings.Cut(s, ",")
	if strings.EqualFold(first, "strong") {
		first = "high" // as aovlb profile calls it
	}
	known, ok := ikev2.LookUpPolicy(first)
	switch {
	case ok && rest == "":
		return known, nil
	case ok && known.Custom == nil:
		return ikev2.Policy{}, fmt.Errorf("%s is no custom policy, so nothing in it can be changed", first)
	case ok:
		return changedPolicy(s, *known.Custom, strings.Split(rest, ","))
	}
	words := strings.Split(s, ",")
	if len(words) >= 6 && !strings.ContainsAny(s, "-/") {
		var c ikev2.CustomPolicy
		for i, setting := range ikev2.Settings() {
			c.Set(setting, strings.TrimSpace(words[i]))
		}
		return changedPolicy(s, c, words[6:])
	}
	if !strings.Contains(s, "-") {
		return ikev2.Policy{}, fmt.Errorf("there is no policy %q: see aovlb crypto policies, or aovlb crypto help for what else it may be", s)
	}
	ike, esp, _ := strings.Cut(s, "/")
	p := ikev2.Policy{Name: s, Note: "given as proposals"}
	var err error
	if p.IKE, err = ikev2.ParseProposals(ikev2.ProtocolIKE, ike); err == nil && esp != "" {
		p.ESP, err = ikev2.ParseProposals(ikev2.ProtocolESP, esp)
	}
	return p, err
}

// changedPolicy applies changes such as DHGroup=ECP384.
func changedPolicy(name string, c ikev2.CustomPolicy, changes []string) (ikev2.Policy, error) {
	for _, change := range changes {
		key, value, _ := strings.Cut(change, "=")
		i := slices.IndexFunc(ikev2.Settings(), func(s ikev2.Setting) bool {
			return strings.EqualFold(s.String(), strings.TrimPrefix(strings.TrimSpace(key), "-"))
		})
		if i < 0 {
			return ikev2.Policy{}, fmt.Errorf("there is no setting %q: they are %v", key, ikev2.Settings())
		}
		c.Set(ikev2.Settings()[i], strings.TrimSpace(value))
	}
	n, err := c.Normalize()
	if err != nil {
		return ikev2.Policy{}, err
	}
	p, err := n.Policy(name)
	if err != nil {
		// What Windows can't do can still be graded.
		return ikev2.Policy{Name: name, Custom: &n}, nil //nolint:nilerr // who needs the proposals checks it again
	}
	p.Custom = &n
	return p, nil
}

// custom returns the custom policy that s names, as one that Windows can do.
func custom(s string) (ikev2.CustomPolicy, error) {
	p, err := parsePolicy(s)
	if err != nil {
		return ikev2.CustomPolicy{}, err
	}
	if p.Custom != nil {
		return *p.Custom, p.Custom.Check()
	}
	if len(p.IKE) != 1 || len(p.ESP) != 1 {
		return ikev2.CustomPolicy{}, fmt.Errorf("%s can't be a custom policy: that has one proposal for IKE and one for ESP", s)
	}
	ike, err := ikev2.SuiteOf(p.IKE[0])
	if err != nil {
		return ikev2.CustomPolicy{}, err
	}
	esp, err := ikev2.SuiteOf(p.ESP[0])
	if err != nil {
		return ikev2.CustomPolicy{}, err
	}
	return ikev2.CustomPolicyOf(ike, esp)
}

// remark is an ikev2.Remark as JSON.
type remark struct {
	Grade  ikev2.Grade `json:"grade"`
	About  string      `json:"about"`
	Reason string      `json:"reason"`
	Fix    string      `json:"fix,omitempty"`
}

func remarks(rs []ikev2.Remark) []remark {
	out := make([]remark, 0, len(rs))
	for _, r := range rs {
		out = append(out, remark(r))
	}
	return out
}

func printRemarks(w io.Writer, a *ikev2.Assessment) {
	for _, r := range slices.Concat(a.Remarks, a.Outlook) {
		fmt.Fprintf(w, "  %-10v %s: %s\n", r.Grade, r.About, r.Reason)
		if r.Fix != "" {
			fmt.Fprintf(w, "  %-10s → %s\n", "", r.Fix)
		}
	}
}

func runPolicies(env *environment, args []string) error {
	fs := flag.NewFlagSet("crypto policies", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	if _, err := parse(env, fs, args, 0); err != nil {
		return err
	}
	type known struct {
		Name   string              `json:"name"`
		Note   string              `json:"note"`
		Grade  ikev2.Grade         `json:"grade"`
		Custom *ikev2.CustomPolicy `json:"custom,omitempty"`
		IKE    []string            `json:"ike"`
		ESP    []string            `json:"esp"`
	}
	var list []known
	for _, p := range ikev2.Policies() {
		list = append(list, known{p.Name, p.Note, p.Assess().Grade, p.Custom, texts(p.IKE), texts(p.ESP)})
	}
	if *asJSON {
		return printJSON(env.stdout, list)
	}
	for _, k := range list {
		fmt.Fprintf(env.stdout, "%-14s %-10v %s\n", k.Name, k.Grade, k.Note)
	}
	return nil
}

func texts(ps []ikev2.Proposal) []string {
	out := make([]string, 0, len(ps))
	for _, p := range ps {
		out = append(out, p.String())
	}
	return out
}

func runAssess(env *environment, args []string) error {
	fs := flag.NewFlagSet("crypto assess", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	p, err := parsePolicy(args[0])
	if err != nil {
		return err
	}
	a := p.Assess()
	if p.Custom != nil {
		// In the words of Windows' settings.
		if a, err = p.Custom.Assess(); err != nil {
			return err
		}
	}
	if *asJSON {
		err = printJSON(env.stdout, struct {
			Policy  string      `json:"policy"`
			Grade   ikev2.Grade `json:"grade"`
			IKE     []string    `json:"ike"`
			ESP     []string    `json:"esp"`
			Remarks []remark    `json:"remarks"`
			Outlook []remark    `json:"outlook"`
		}{p.Name, a.Grade, texts(p.IKE), texts(p.ESP), remarks(a.Remarks), remarks(a.Outlook)})
	} else {
		fmt.Fprintf(env.stdout, "%s is %v\n", p.Name, a.Grade)
		printRemarks(env.stdout, &a)
	}
	if err == nil && a.Grade < ikev2.GradeAcceptable {
		err = errSilent
	}
	return err
}

// agreement is a Negotiation as JSON.
type agreement struct {
	OK      bool           `json:"ok"`
	Suite   string         `json:"suite,omitempty"`
	Grade   *ikev2.Grade   `json:"grade,omitempty"`
	Offered int            `json:"proposal,omitempty"`
	Misses  []disagreement `json:"misses,omitempty"`
	text    string
}

type disagreement struct {
	Proposal int      `json:"proposal"`
	Offered  string   `json:"offered"`
	Faults   []string `json:"faults"`
	// Windows says the same in the words of Windows' settings, as far as it has
	// them.
	Windows []string `json:"windows,omitempty"`
}

func agreementOf(n ikev2.Negotiation) *agreement {
	a := &agreement{OK: n.OK, text: n.String()}
	if n.OK {
		g := n.Suite.Assess().Grade
		a.Suite, a.Grade, a.Offered = n.Suite.String(), &g, n.Offered+1
	}
	for _, m := range n.Misses {
		d := disagreement{Proposal: m.Offered + 1, Offered: m.Proposal.String()}
		for _, f := range m.Faults {
			d.Faults = append(d.Faults, f.String())
			if w := f.Windows(m.Proposal.Protocol); w != "" && !slices.Contains(d.Windows, w) {
				d.Windows = append(d.Windows, w)
			}
		}
		a.Misses = append(a.Misses, d)
	}
	return a
}

func runNegotiate(env *environment, args []string) error {
	fs := flag.NewFlagSet("crypto negotiate", flag.ContinueOnError)
	asJSON := fs.Bool("json", false, "print JSON")
	all := fs.Bool("all", false, "say of every proposal of the client why it doesn't fit")
	args, err := parse(env, fs, args, 2)
	if err != nil {
		return err
	}
	var sides [2]ikev2.Policy
	for i := range sides {
		if sides[i], err = parsePolicy(args[i]); err != nil {
			return err
		}
		if c := sides[i].Custom; c != nil {
			if err := c.Check(); err != nil {
				return err
			}
		}
	}
	client, server := sides[0], sides[1]
	out := struct {
		IKE   *agreement `json:"ike"`
		First *agreement `json:"esp,omitempty"`
		Rekey *agreement `json:"espRenewed,omitempty"`
	}{IKE: agreementOf(ikev2.Negotiate(client.IKE, server))}
	if len(client.ESP) > 0 && len(server.ESP) > 0 {
		out.First = agreementOf(ikev2.NegotiateChild(client.ESP, server, true))
		out.Rekey = agreementOf(ikev2.NegotiateChild(client.ESP, server, false))
	}
	if *asJSON {
		err = printJSON(env.stdout, out)
	} else {
		out.IKE.print(env.stdout, "IKE", *all)
		out.First.print(env.stdout, "ESP", *all)
		out.Rekey.print(env.stdout, "ESP, renewed", *all)
		if out.Rekey != nil && out.First.OK && !out.Rekey.OK {
			fmt.Fprintln(env.stdout, "The tunnel comes up, and breaks when it is to be renewed, hours later: make PfsGroup the same on both sides.")
		}
	}
	if err == nil && (!out.IKE.OK || out.First != nil && !out.First.OK || out.Rekey != nil && !out.Rekey.OK) {
		err = errSilent
	}
	return err
}

func (a *agreement) print(w io.Writer, what string, all bool) {
	switch {
	case a == nil:
	case a.OK:
		fmt.Fprintf(w, "%-13s %s (%v, proposal %d of the client)\n", what, a.Suite, *a.Grade, a.Offered)
	default:
		fmt.Fprintf(w, "%-13s %s\n", what, a.text)
		for _, m := range a.Misses[:min(len(a.Misses), 1)] {
			for _, s := range m.Windows {
				fmt.Fprintf(w, "%-13s → %s\n", "", s)
			}
		}
	}
	if a == nil || !all {
		return
	}
	for _, m := range a.Misses {
		fmt.Fprintf(w, "  proposal %d, %s: %s\n", m.Proposal, m.Offered, strings.Join(m.Faults, "; "))
	}
}

func runPowerShell(env *environment, args []string) error {
	fs := flag.NewFlagSet("crypto powershell", flag.ContinueOnError)
	connection := fs.String("connection", "", "client: the `name` of the connection")
	allUsers := fs.Bool("all-users", false, "client: the connection is the computer's, as a device tunnel is")
	noRestart := fs.Bool("no-restart", false, "server: don't restart the service, which would end all connections")
	args, err := parse(env, fs, args, 2)
	if err != nil {
		return err
	}
	var c ikev2.CustomPolicy
	revert := args[1] == "default"
	if !revert {
		if c, err = custom(args[1]); err != nil {
			return err
		}
	}
	text := ""
	switch args[0] {
	case "server":
		o := ikev2.RecommendedSetup()
		o.NoRestart = *noRestart
		if revert {
			text = ikev2.RevertServerPowerShell(o)
		} else {
			text, err = c.ServerPowerShell(o)
		}
	case "client":
		switch {
		case *connection == "":
			return errors.New("say which connection: --connection NAME, as Get-VpnConnection lists it")
		case revert:
			text, err = ikev2.RevertClientPowerShell(*connection, *allUsers)
		default:
			text, err = c.ClientPowerShell(*connection, *allUsers)
		}
	default:
		return &usageError{fmt.Sprintf("%q is neither server nor client", args[0])}
	}
	if err != nil {
		return err
	}
	fmt.Fprint(env.stdout, text)
	if !revert {
		warnPolicy(env, &c)
	}
	return nil
}

func runSuiteXML(env *environment, args []string) error {
	fs := flag.NewFlagSet("crypto profilexml", flag.ContinueOnError)
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	c, err := custom(args[0])
	if err != nil {
		return err
	}
	text, err := c.CryptographySuite("")
	if err != nil {
		return err
	}
	fmt.Fprint(env.stdout, text)
	warnPolicy(env, &c)
	return nil
}

// warnPolicy says what is wrong with a policy, beside the script, where it does
// no harm to it.
func warnPolicy(env *environment, c *ikev2.CustomPolicy) {
	a, err := c.Assess()
	if err != nil || a.Grade >= ikev2.GradeAcceptable {
		return
	}
	for _, r := range a.Remarks {
		if r.Grade < ikev2.GradeAcceptable {
			fmt.Fprintf(env.stderr, "warning: %v\n", r)
		}
	}
}
