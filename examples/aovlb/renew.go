package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/aovlb/aovlb/plugins/builtin"
	"github.com/aovlb/aovlb/sstp"
)

var renewCommand = command{
	name: "renew", usage: "[--status|--confirm GATEWAY|--pause|--back|--issue] [--prove] [CERTIFICATE]",
	short: "bring a new certificate to the gateways, one after the other", run: runRenew,
}

// renewBody is the body of POST /v1/renew.
type renewBody struct {
	// Certificate is its name; it may be empty if there is one.
	Certificate string `json:"certificate"`
	// Do is empty to begin or resume a renewal, or confirm, pause, back, or issue.
	Do string `json:"do,omitempty"`
	// Gateway is whose hash was set by hand, for confirm.
	Gateway string `json:"gateway,omitempty"`
}

// certificatesReply is what GET /v1/certificates returns.
type certificatesReply struct {
	Certificates []certificateReply `json:"certificates"`
}

type certificateReply struct {
	builtin.CertificateStats
	// CA says how things stand with the CA; nil if it comes from a file.
	CA *caStatus `json:"ca,omitempty"`
}

func runRenew(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("renew", flag.ContinueOnError)
	r := env.flags(fs)
	status := fs.Bool("status", false, "say what the gateways expect and how far a renewal is, and change nothing")
	confirm := fs.String("confirm", "", "the hash of this `gateway` has been set by hand, and its service restarted")
	pause := fs.Bool("pause", false, "stop the renewal where it is; aovlb renew goes on with it")
	back := fs.Bool("back", false, "bring the gateways back to the certificate before")
	issue := fs.Bool("issue", false, "have the CA issue a new certificate now")
	script := fs.String("script", "", "print the PowerShell that sets the hash on this `gateway`")
	prove := fs.Bool("prove", false, "wait until a session has proved the hash of the last gateway, too")
	noWait := fs.Bool("no-wait", false, "begin, and don't wait for the end")
	asJSON := fs.Bool("json", false, "status: print JSON")
	args, err := parse(env, fs, args, anyNumber)
	if err != nil {
		return err
	}
	if len(args) > 1 {
		return &usageError{"it takes one certificate at a time"}
	}
	// An empty variable of a shell must not become the beginning of a renewal.
	fs.Visit(func(f *flag.Flag) {
		if (f.Name == "confirm" || f.Name == "script") && f.Value.String() == "" {
			err = &usageError{"--" + f.Name + " needs the name of a gateway"}
		}
	})
	if err != nil {
		return err
	}
	body := renewBody{}
	if len(args) == 1 {
		body.Certificate = args[0]
	}
	chosen := 0
	for _, c := range []struct {
		on bool
		do string
	}{{*confirm != "", "confirm"}, {*pause, "pause"}, {*back, "back"}, {*issue, "issue"}, {*status, ""}, {*script != "", ""}} {
		if c.on {
			chosen++
			body.Do = c.do
		}
	}
	if chosen > 1 {
		return &usageError{"only one thing can be done at a time"}
	}
	body.Gateway = *confirm
	switch {
	case *status:
		return r.showCertificates(ctx, env, body.Certificate, *asJSON)
	case *script != "":
		return r.showScript(ctx, env, body.Certificate, *script)
	}
	if err := r.call(ctx, "POST", "/v1/renew", body, &struct{}{}); err != nil {
		return err
	}
	switch {
	case *pause:
		fmt.Fprintln(env.stdout, "the renewal is paused; a gateway in the middle of its change stays drained")
		return nil
	case *issue:
		fmt.Fprintln(env.stdout, "the CA has issued a new certificate")
		return nil
	case *noWait:
		return nil
	}
	return r.follow(ctx, env, body.Certificate, *prove)
}

func (r *remote) certificates(ctx context.Context) ([]certificateReply, error) {
	var out certificatesReply
	return out.Certificates, r.call(ctx, "GET", "/v1/certificates", nil, &out)
}

// certificate returns the one of this name, or the only one.
func (r *remote) certificate(ctx context.Context, name string) (*certificateReply, error) {
	list, err := r.certificates(ctx)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Name == name || name == "" && len(list) == 1 {
			return &list[i], nil
		}
	}
	if name == "" {
		return nil, fmt.Errorf("there are %d certificates: say which", len(list))
	}
	return nil, fmt.Errorf("there is no certificate %q", name)
}

// follow shows a renewal until it is done, stands still, or waits for a hand. To be
// interrupted costs nothing: the renewal goes on in the balancer. Once all gateways
// are changed there is nothing left to do for anybody: that a session proves the
// hash of the last one is waited for only with prove. At night none may come.
func (r *remote) follow(ctx context.Context, env *environment, name string, prove bool) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	last := ""
	for {
		c, err := r.certificate(ctx, name)
		switch {
		case ctx.Err() != nil:
			fmt.Fprintln(env.stdout, "the renewal goes on without you; aovlb renew --status shows it, aovlb renew --pause stops it")
			return nil
		case err != nil:
			return err
		}
		if text := progress(c); text != last {
			fmt.Fprint(env.stdout, text)
			last = text
		}
		switch {
		case c.Renewal == nil:
			return nil
		case !c.Renewal.Ended.IsZero():
			fmt.Fprintf(env.stdout, "done: all gateways of pool %s expect %v\n", c.Pool, c.Renewal.To)
			return nil
		case c.Waiting != "":
			printByHand(env.stdout, c)
			return nil
		case !c.Running && c.Stopped != "":
			return errors.New(c.Stopped + "; the gateway stays drained and the others serve: put it right, and call aovlb renew again")
		case c.Renewal.Paused:
			return errors.New("the renewal was paused")
		case !prove && c.Running && c.Renewal.Unproved() != nil:
			printUnproved(env.stdout, c)
			return nil
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// progress is one line for each gateway.
func progress(c *certificateReply) string {
	if c.Renewal == nil {
		return ""
	}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, g := range c.Renewal.Gateways {
		text := printableLine(g.Error)
		if g.Phase == sstp.PhaseDone && g.Evidence != nil {
			text = g.Evidence.String()
		}
		text += left(&g)
		fmt.Fprintf(t, "%s\t%s\t%s\n", g.Gateway, g.Phase, text)
	}
	t.Flush()
	return b.String()
}

// left says how long a gateway's phase may still last, in half minutes: it isn't to
// be news at each look.
func left(g *sstp.GatewayRenewal) string {
	const step = 30 * time.Second
	d := time.Until(g.Until)
	if g.Until.IsZero() || d <= 0 {
		return ""
	}
	return fmt.Sprintf(" (up to %v left)", (d + step - 1).Truncate(step))
}

// printUnproved is the last word on a renewal while the balancer still looks what
// comes of the last gateway's sessions.
func printUnproved(w io.Writer, c *certificateReply) {
	g := c.Renewal.Unproved()
	fmt.Fprintf(w, `changed: all gateways of pool %[1]s have %[3]v, and take clients.
That it is set at %[2]s is only somebody's word. Until %[4]s%[5]s the balancer looks for a
session that proves it, and takes %[2]s out of service again if its sessions are aborted:
    aovlb renew --status %[6]s     shows how that ends
    aovlb renew --prove %[6]s      waits for it
`, c.Pool, g.Gateway, c.Renewal.To, g.Until.Local().Format(time.TimeOnly), left(g), c.Name)
}

func printByHand(w io.Writer, c *certificateReply) {
	fmt.Fprintf(w, `
%[1]s is drained and waits for its hash. On %[1]s, as an administrator, run what
    aovlb renew --script %[1]s %[2]s
prints: it sets the hash, verifies it, and restarts RemoteAccess. In short, that is
    SHA256CertificateHash = %[3]v
Then say so:
    aovlb renew --confirm %[1]s %[2]s
`, c.Waiting, c.Name, c.Renewal.To)
}

func (r *remote) showScript(ctx context.Context, env *environment, name, gateway string) error {
	var out struct {
		Script string `json:"script"`
	}
	q := url.Values{"certificate": {name}, "gateway": {gateway}}
	if err := r.call(ctx, "GET", "/v1/renewal-script?"+q.Encode(), nil, &out); err != nil {
		return err
	}
	_, err := fmt.Fprint(env.stdout, out.Script)
	return err
}

func (r *remote) showCertificates(ctx context.Context, env *environment, name string, asJSON bool) error {
	list, err := r.certificates(ctx)
	if err != nil {
		return err
	}
	if name != "" {
		c, err := r.certificate(ctx, name)
		if err != nil {
			return err
		}
		list = []certificateReply{*c}
	}
	if asJSON {
		return printJSON(env.stdout, certificatesReply{list})
	}
	if len(list) == 0 {
		fmt.Fprintln(env.stdout, "no certificate is configured")
	}
	for i := range list {
		printCertificate(env.stdout, &list[i])
	}
	return nil
}

// printCertificate says all about one certificate.
func printCertificate(w io.Writer, c *certificateReply) {
	fmt.Fprintf(w, "certificate %s, for the gateways of pool %s\n", c.Name, c.Pool)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, l := range c.Ring.Leaves {
		mark := ""
		if l.SHA256 == c.Ring.Current {
			mark = ", current"
		}
		fmt.Fprintf(t, "  leaf\t%v\tends %s, shown %d times%s\n", l.SHA256, l.NotAfter.UTC().Format(time.DateOnly), l.Served, mark)
	}
	for _, g := range c.Ring.Gateways {
		expects := g.Expects.String()
		if g.Unsure != "" {
			expects = "unknown: " + g.Unsure
		}
		fmt.Fprintf(t, "  gateway\t%s\texpects %s\n", g.Gateway, expects)
	}
	for _, g := range c.Assumed {
		fmt.Fprintf(t, "  gateway\t%s\texpects %v, it is assumed\n", g, c.Ring.Current)
	}
	t.Flush()
	if c.CA != nil && c.CA.Error != "" {
		fmt.Fprintf(w, "  the CA: %s\n", printableLine(c.CA.Error))
	}
	for _, d := range c.Doubts {
		fmt.Fprintf(w, "  %s: %s\n", d.Gateway, printableLine(d.Text))
	}
	for _, f := range c.Findings {
		fmt.Fprintf(w, "  %s\n", printableLine(f.String()))
	}
	if r := c.Renewal; r != nil {
		switch {
		case !r.Ended.IsZero():
			fmt.Fprintf(w, "  the last renewal ended at %s\n", r.Ended.Local().Format(time.DateTime))
		case c.Running:
			fmt.Fprintf(w, "  a renewal to %v is under way\n", r.To)
		case c.Stopped != "":
			fmt.Fprintf(w, "  the renewal to %v stands still: %s\n", r.To, printableLine(c.Stopped))
		default:
			fmt.Fprintf(w, "  the renewal to %v waits for aovlb renew\n", r.To)
		}
		for line := range strings.Lines(progress(c)) {
			fmt.Fprint(w, "    "+line)
		}
	}
}

func (s *server) handleCertificates(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, certificatesReply{Certificates: s.certificates()})
}

func (s *server) certificates() []certificateReply {
	out := []certificateReply{}
	for _, c := range s.driver.Certificates() {
		out = append(out, certificateReply{CertificateStats: c, CA: s.cas.status(c.Name)})
	}
	return out
}

func (s *server) handleRenew(w http.ResponseWriter, r *http.Request) {
	var b renewBody
	if !read(w, r, &b) {
		return
	}
	var err error
	switch b.Do {
	case "":
		err = s.driver.Renew(r.Context(), b.Certificate, false)
	case "back":
		err = s.driver.Renew(r.Context(), b.Certificate, true)
	case "pause":
		err = s.driver.PauseRenewal(r.Context(), b.Certificate)
	case "confirm":
		err = s.driver.ConfirmRenewal(r.Context(), b.Certificate, b.Gateway)
	case "issue":
		err = s.cas.issue(r.Context(), b.Certificate)
	default:
		reply(w, http.StatusBadRequest, problem{Error: "do can be confirm, pause, back or issue"})
		return
	}
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, struct{}{})
}

func (s *server) handleRenewalScript(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	text, err := s.driver.RenewalScript(q.Get("certificate"), q.Get("gateway"))
	if err != nil {
		fail(w, err)
		return
	}
	reply(w, http.StatusOK, map[string]string{"script": text})
}
