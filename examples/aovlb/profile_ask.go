package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/profilexml"
)

// ask asks for what a profile is made of. An answer that can't be is asked for
// again, so that nobody types it all twice.
func (r *profileRequest) ask(in io.Reader, out io.Writer) error {
	*r = profileRequest{kind: "user", protocol: "IKEv2", suite: "enhanced", method: "PEAP-TLS", use: "editor"}
	q := &questions{in: bufio.NewScanner(in), out: out}
	fmt.Fprintln(out, "This makes a profile for Windows clients. Enter takes what is in brackets; lists have commas.")
	q.text(&r.kind, "Is it for users, or for devices before logon: user, device, lockdown", oneOf("user", "device", "lockdown"))
	q.list(&r.servers, "The public name of the gateways, as in their certificate", true, isGateway)
	if r.kind == "user" {
		q.text(&r.protocol, "The protocol: IKEv2, SSTP (Windows 11), IKEv2>SSTP (Windows 11)", oneOf("IKEv2", "SSTP", "IKEv2>SSTP", "SSTP>IKEv2", "Automatic"))
	}
	q.text(&r.suite, "The cryptography: enhanced (Windows 10 1803 and Server 2019 on), standard, strong", func(s string) error {
		_, err := parseSuite(s)
		return err
	})
	if r.kind == "user" {
		r.askUser(q)
	}
	if !r.force && r.kind != "lockdown" {
		q.list(&r.routes, "The networks behind the VPN, such as 10.0.0.0/8, or @FILE", r.kind == "device", isNetwork)
	}
	q.text(&r.use, "Is it to be read by people, or delivered at once: editor, intune, wmi", oneOf("editor", "intune", "wmi"))
	q.text(&r.out, "The file to write; none prints it", isWritable)
	if q.err == nil && q.ended {
		q.err = errors.New("the answers ended before the questions")
	}
	return q.err
}

func (r *profileRequest) askUser(q *questions) {
	q.yes(&r.force, "Should everything go through the VPN, the Internet too")
	q.text(&r.method, "How are users known: PEAP-TLS (NPS), EAP-TLS, PEAP-MSCHAPv2 (passwords)", func(s string) error {
		_, err := profilexml.ParseEAPMethod(s)
		return err
	})
	q.list(&r.nps, "The name of the RADIUS (NPS) server, as in its certificate", true, nil)
	q.list(&r.roots, "The root of that certificate: its file, or its SHA-1 thumbprint", true, func(s string) error {
		_, err := thumbprints([]string{s}, true)
		return err
	})
	isIssuer := func(s string) error {
		_, err := thumbprints([]string{s}, false)
		return err
	}
	if !strings.EqualFold(r.method, profilexml.PEAPMSCHAPv2.String()) {
		q.yes(&r.access, "Is there Entra conditional access for the VPN")
		if r.access {
			q.list(&r.issuers, "The company's own root, for servers behind the VPN: file or thumbprint", false, isIssuer)
		} else {
			q.list(&r.issuers, "Take only users' certificates of this issuer: file or thumbprint", false, isIssuer)
		}
	}
	q.list(&r.trusted, "The DNS suffix of the internal network, where no VPN is needed", false, nil)
	if len(r.trusted) == 0 {
		return
	}
	var servers list
	q.list(&servers, "The DNS servers for names that end so", false, func(s string) error {
		_, err := netip.ParseAddr(s)
		return err
	})
	for _, name := range r.trusted {
		if len(servers) > 0 {
			r.dns = append(r.dns, "."+strings.TrimPrefix(name, ".")+"="+strings.Join(servers, ","))
		}
	}
}

// oneOf returns the test for answers of which there are a few.
func oneOf(values ...string) func(string) error {
	return func(s string) error {
		if !slices.ContainsFunc(values, func(v string) bool { return strings.EqualFold(v, s) }) {
			return fmt.Errorf("it can be %s", strings.Join(values, ", "))
		}
		return nil
	}
}

func isGateway(s string) error {
	if strings.ContainsAny(s, ";/: ") && !strings.Contains(s, "::") {
		return fmt.Errorf("%q isn't a name such as vpn.example.com", s)
	}
	return nil
}

func isNetwork(s string) error {
	_, err := networksOf(list{s})
	return err
}

// isWritable finds what keeps a file from being written that can be seen before.
func isWritable(name string) error {
	if info, err := os.Stat(name); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a folder", name)
	}
	folder := filepath.Dir(name)
	info, err := os.Stat(folder)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no folder", folder)
	}
	return err
}

// questions asks one thing after the other.
type questions struct {
	in    *bufio.Scanner
	out   io.Writer
	err   error
	ended bool
}

// line asks, and returns the answer.
func (q *questions) line(question, otherwise string) string {
	if otherwise != "" {
		question += " [" + otherwise + "]"
	}
	fmt.Fprintf(q.out, "%s? ", question)
	if !q.in.Scan() {
		q.ended, q.err = true, q.in.Err()
		return ""
	}
	return strings.TrimSpace(q.in.Text())
}

// text asks until the answer passes the test, if there is one.
func (q *questions) text(v *string, question string, test func(string) error) {
	for !q.ended {
		s := q.line(question, *v)
		if s == "" {
			return
		}
		if test != nil {
			if err := test(s); err != nil {
				fmt.Fprintf(q.out, "%s\n", printableLine(err.Error()))
				continue
			}
		}
		*v = s
		return
	}
}

func (q *questions) yes(v *bool, question string) {
	answer := "no"
	q.text(&answer, question, oneOf("yes", "no", "y", "n"))
	*v = strings.HasPrefix(strings.ToLower(answer), "y")
}

// list asks for a list until each item passes the test, and again if it is
// needed and there is none.
func (q *questions) list(v *list, question string, needed bool, test func(string) error) {
	for !q.ended {
		var l list
		if err := l.Set(q.line(question, "")); err != nil {
			q.err = err
			return
		}
		fault := ""
		if len(l) == 0 && needed {
			fault = "it can't be left out"
		}
		for _, s := range l {
			if test == nil {
				break
			}
			if err := test(s); err != nil {
				fault = err.Error()
			}
		}
		if fault == "" {
			*v = l
			return
		}
		if !q.ended {
			fmt.Fprintf(q.out, "%s\n", printableLine(fault))
		}
	}
}
