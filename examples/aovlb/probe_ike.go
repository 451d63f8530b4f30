package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/aovlb/aovlb/ikev2"
)

// errPolicy is what a Windows client would stumble over.
var errPolicy = errors.New("it lives, but refuses all the proposals that Windows makes: clients would fail with error 13868 or 800")

// proposals returns what --offer asks for; nil is the default.
func (a *asked) proposals() ([]ikev2.Proposal, error) {
	if a.offer == "" {
		return nil, nil
	}
	p, err := parsePolicy(a.offer)
	if err != nil {
		return nil, err
	}
	if p.Custom != nil {
		if err := p.Custom.Check(); err != nil {
			return nil, err
		}
	}
	return p.IKE, nil
}

func askIKE(ctx context.Context, a *asked, f *finding) error {
	ps, err := a.proposals()
	if err != nil {
		return err
	}
	p := ikev2.Prober{Complete: !a.gentle, Proposals: ps}
	var r ikev2.Result
	if f.Target.Port() == ikev2.Port {
		both := p.AskPorts(ctx, f.Target.Addr())
		r, err = both.IKE, both.IKEErr
		defer f.addPort4500(both)
		if err == nil && both.NATTErr != nil {
			err = errors.New(both.String())
		}
	} else {
		r, err = p.Ask(ctx, f.Target)
	}
	if err == nil && r.Answer == ikev2.AnswerNoProposal {
		err = errPolicy
		if a.offer != "" {
			err = fmt.Errorf("it lives, but refuses what %s offers: clients would fail with error 13868 or 800", a.offer)
		}
	}
	f.addIKE(&r)
	return err
}

// addIKE notes what a gateway said.
func (f *finding) addIKE(r *ikev2.Result) {
	if r.Sent > 1 {
		defer f.add("requests sent", "%d", r.Sent)
	}
	if r.Answer == ikev2.AnswerNone {
		return
	}
	f.add("answer", "%v", *r)
	f.add("round trip", "%v", r.RoundTrip.Round(10*time.Microsecond))
	f.add("asks for a cookie", "%s", yesNo(r.Cookie))
	if r.Answer == ikev2.AnswerSA {
		if s, err := ikev2.SuiteOf(r.Suite); err == nil {
			f.add("suite", "%v", s)
			f.add("grade", "%v", s.Assess().Grade)
		}
		f.add("IKE fragments", "%s", yesNo(r.Fragments))
		f.add("address translation", "%v", r.NAT)
	}
	if r.Authorities > 0 {
		f.add("certificate authorities", "%d", r.Authorities)
	}
	for _, v := range r.Vendors {
		f.add("vendor", "%v", v)
	}
}

// addPort4500 notes what came of the question to port 4500.
func (f *finding) addPort4500(p ikev2.Ports) {
	if p.NATTErr != nil {
		f.add("port 4500", "no answer")
		return
	}
	f.add("port 4500", "%v", p.NATT.Answer)
}

// A scanReport is what probe --scan prints.
type scanReport struct {
	Target netip.AddrPort `json:"target"`
	Error  string         `json:"error,omitempty"`
	Grade  ikev2.Grade    `json:"grade"`
	// Exact says that these are all suites there are, of the algorithms asked
	// about.
	Exact       bool          `json:"exact"`
	Suites      []scanSuite   `json:"suites"`
	Accepted    []scanCiphers `json:"accepted"`
	PostQuantum []string      `json:"postQuantum"`
	Cookies     bool          `json:"cookies"`
	HalfOpen    int           `json:"halfOpen"`
	Questions   int           `json:"questions"`
	Datagrams   int           `json:"datagrams"`
	Seconds     float64       `json:"seconds"`
	Remarks     []remark      `json:"remarks"`
	Outlook     []remark      `json:"outlook"`

	assessment ikev2.Assessment
}

type scanSuite struct {
	Suite string      `json:"suite"`
	Grade ikev2.Grade `json:"grade"`
	// Windows says which settings make a client propose it; empty if none do.
	Windows string `json:"windows,omitempty"`
}

type scanCiphers struct {
	Encryption string   `json:"encryption"`
	Integrity  []string `json:"integrity"`
	PRFs       []string `json:"prfs"`
	Groups     []string `json:"groups"`
}

// scanIKE scans all targets, and reports whether clients could be served by all.
func scanIKE(ctx context.Context, env *environment, a *asked, targets []netip.AddrPort, asJSON bool) error {
	reports := make([]*scanReport, 0, len(targets))
	failed := false
	for _, t := range targets {
		s := ikev2.Scanner{Interval: a.interval, Max: a.most, Timeout: a.timeout}
		if a.all {
			s.Candidates = ikev2.AllCandidates()
		}
		if !asJSON && a.verbose {
			s.Progress = func(n int) { fmt.Fprintf(env.stderr, "\r%d questions", n) }
		}
		found, err := s.Scan(ctx, t)
		if s.Progress != nil {
			fmt.Fprintln(env.stderr)
		}
		r := newScanReport(t, &found, err)
		failed = failed || err != nil || len(r.Accepted) == 0
		reports = append(reports, r)
	}
	if asJSON {
		if err := printJSON(env.stdout, reports); err != nil {
			return err
		}
	} else {
		for _, r := range reports {
			r.print(env.stdout, a.all)
		}
	}
	if failed {
		return errSilent
	}
	return nil
}

func newScanReport(t netip.AddrPort, s *ikev2.Scan, err error) *scanReport {
	r := &scanReport{
		Target: t, Exact: s.Exact, Suites: []scanSuite{}, Accepted: []scanCiphers{}, PostQuantum: []string{}, Cookies: s.Cookies,
		HalfOpen: s.HalfOpen, Questions: s.Questions, Datagrams: s.Sent, Seconds: s.Took.Seconds(), assessment: s.Assess(),
	}
	r.Grade, r.Remarks, r.Outlook = r.assessment.Grade, remarks(r.assessment.Remarks), remarks(r.assessment.Outlook)
	if err != nil {
		r.Error = err.Error()
	}
	for _, x := range s.Suites {
		r.Suites = append(r.Suites, scanSuite{x.String(), x.Assess().Grade, windowsSettings(x)})
	}
	for _, x := range s.Accepted {
		c := scanCiphers{Encryption: x.Encr.String(), Integrity: textOf(x.Integ), PRFs: textOf(x.PRFs), Groups: textOf(x.Groups)}
		r.Accepted = append(r.Accepted, c)
	}
	r.PostQuantum = textOf(s.PostQuantum)
	return r
}

func textOf[T fmt.Stringer](list []T) []string {
	out := make([]string, 0, len(list))
	for _, x := range list {
		out = append(out, x.String())
	}
	return out
}

// windowsSettings returns the settings of a custom policy for IKE with which
// Windows proposes s.
func windowsSettings(s ikev2.Suite) string {
	_, esp, err := ikev2.EnhancedPolicy().Suites()
	if err != nil {
		return ""
	}
	c, err := ikev2.CustomPolicyOf(s, esp)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("EncryptionMethod %s, IntegrityCheckMethod %s, DHGroup %s", c.EncryptionMethod, c.IntegrityCheckMethod, c.DHGroup)
}

func (r *scanReport) print(w io.Writer, all bool) {
	fmt.Fprintf(w, "%v: questions %d, datagrams %d, %.1f s\n", r.Target, r.Questions, r.Datagrams, r.Seconds)
	if r.Error != "" {
		fmt.Fprintf(w, "  stopped: %s\n", r.Error)
	}
	kind := "algorithms of Windows"
	if all {
		kind = "algorithms asked about"
	}
	switch {
	case len(r.Accepted) == 0 && r.Error == "":
		fmt.Fprintf(w, "  it accepts none of the %s\n", kind)
		return
	case len(r.Accepted) == 0:
		return
	}
	if len(r.Suites) > 0 {
		tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "  GRADE\tSUITE\tCUSTOM POLICY OF WINDOWS")
		for _, s := range r.Suites {
			fmt.Fprintf(tw, "  %v\t%s\t%s\n", s.Grade, s.Suite, s.Windows)
		}
		_ = tw.Flush() // errors of w are errors of the lines after, too
	}
	if !r.Exact {
		fmt.Fprintln(w, "  There may be more suites: the scan ended before all combinations were tried. What is accepted, with something or other:")
		for _, c := range r.Accepted {
			fmt.Fprintf(w, "  %s: integrity %v, PRF %v, groups %v\n", c.Encryption, c.Integrity, c.PRFs, c.Groups)
		}
	}
	if len(r.PostQuantum) > 0 {
		fmt.Fprintf(w, "  post-quantum: %v as additional key exchange\n", r.PostQuantum)
	}
	if r.Cookies {
		fmt.Fprintln(w, "  It asked for cookies: it has many half-open SAs.")
	}
	if r.HalfOpen > 0 {
		fmt.Fprintf(w, "  The scan left %d half-open SAs, which end by themselves.\n", r.HalfOpen)
	}
	fmt.Fprintf(w, "  as a whole it is %v\n", r.Grade)
	printRemarks(w, &r.assessment)
}
