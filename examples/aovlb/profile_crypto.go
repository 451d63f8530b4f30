package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/profilexml"
)

// parseSuite reads a suite as profiles have it: all that aovlb crypto takes for
// a custom policy, and the names that profilexml has.
func parseSuite(s string) (profilexml.Suite, error) {
	suite, err := profilexml.ParseSuite(s)
	if err == nil {
		return suite, nil
	}
	c, err2 := custom(s)
	if err2 != nil {
		return suite, &usageError{fmt.Sprintf("%v (see aovlb crypto policies for names)", err)}
	}
	if c, err = c.ProfileXML(); err != nil {
		return suite, err
	}
	return suiteOfPolicy(c), nil
}

// parseServerPolicy reads what parseSuite does, or the file that it names: the
// output of Get-VpnServerConfiguration, a script, another profile.
func parseServerPolicy(s string) (profilexml.Suite, error) {
	suite, err := parseSuite(s)
	if err == nil {
		return suite, nil
	}
	b, err2 := os.ReadFile(s)
	if errors.Is(err2, os.ErrNotExist) {
		return suite, &usageError{fmt.Sprintf("%v, and there is no such file", err)}
	}
	if err2 != nil {
		return suite, err2
	}
	if suite, err = profilexml.FindSuite(b); err != nil {
		return suite, fmt.Errorf("%s: %w", s, err)
	}
	return suite, nil
}

// suiteOfPolicy and policyOfSuite turn one table's policy into the other's: the
// fields are called the same.
func suiteOfPolicy(c ikev2.CustomPolicy) profilexml.Suite {
	return profilexml.Suite{
		AuthenticationTransformConstants: c.AuthenticationTransformConstants, CipherTransformConstants: c.CipherTransformConstants,
		PfsGroup: c.PfsGroup, DHGroup: c.DHGroup, IntegrityCheckMethod: c.IntegrityCheckMethod, EncryptionMethod: c.EncryptionMethod,
	}
}

func policyOfSuite(s profilexml.Suite) ikev2.CustomPolicy {
	return ikev2.CustomPolicy{
		AuthenticationTransformConstants: s.AuthenticationTransformConstants, CipherTransformConstants: s.CipherTransformConstants,
		PfsGroup: s.PfsGroup, DHGroup: s.DHGroup, IntegrityCheckMethod: s.IntegrityCheckMethod, EncryptionMethod: s.EncryptionMethod,
	}
}

// ikeProposal returns the one proposal for the IKE SA that a client with a suite
// makes.
func ikeProposal(s profilexml.Suite) (ikev2.Proposal, error) {
	list, err := s.IKE()
	return proposalOf(ikev2.ProtocolIKE, list), err
}

func proposalOf(protocol ikev2.ProtocolID, list []profilexml.Transform) ikev2.Proposal {
	p := ikev2.Proposal{Number: 1, Protocol: protocol}
	for _, t := range list {
		p.Transforms = append(p.Transforms, ikev2.Transform{Type: ikev2.TransformType(t.Type), ID: t.ID, KeyBits: t.KeyBits})
	}
	return p
}

// A suiteProbe asks gateways whether they take the proposal of a suite for the IKE
// SA. That for ESP can't be asked without logging in. It asks once for each suite,
// however often a Checker wants to know.
type suiteProbe struct {
	host    string
	targets []netip.AddrPort
	timeout time.Duration

	known     map[profilexml.Suite]error
	consulted bool  // by the Checker, since this was set to false
	silent    error // which gateways didn't say
}

// negotiate says why the gateways don't take a suite. What isn't known for want of
// an answer is no fault of the profile, and kept in silent.
func (a *suiteProbe) negotiate(ctx context.Context, s profilexml.Suite) error {
	a.consulted = true
	if err, ok := a.known[s]; ok {
		return err
	}
	p, err := ikeProposal(s)
	if err != nil {
		return err
	}
	var errs []error
	for _, target := range a.targets {
		ctx, cancel := context.WithTimeout(ctx, a.timeout)
		r, err := ikev2.Prober{Proposals: []ikev2.Proposal{p}}.Ask(ctx, target)
		cancel()
		switch {
		case r.Answer == ikev2.AnswerNoProposal:
			errs = append(errs, fmt.Errorf("%v was asked, and refuses %v: clients would end in error 13868 or 800", target, p))
		case r.Answer == ikev2.AnswerSA || r.Answer == ikev2.AnswerInvalidKE:
		case err != nil:
			a.silent = errors.Join(a.silent, fmt.Errorf("it isn't known whether the gateway takes the suite: %w", err))
		default:
			a.silent = errors.Join(a.silent, fmt.Errorf("it isn't known whether the gateway takes the suite: %v answers %v", target, r))
		}
	}
	if a.known == nil {
		a.known = map[profilexml.Suite]error{}
	}
	a.known[s] = errors.Join(errs...)
	return a.known[s]
}

// judgeBy returns what says why gateways with a policy that is no custom one, such
// as what RRAS has by default, don't take a suite.
func judgeBy(name string, policy ikev2.Policy) func(profilexml.Suite) error {
	return func(s profilexml.Suite) error {
		client, err := policyOfSuite(s).Policy("profile")
		if err != nil {
			return err
		}
		if n := ikev2.Negotiate(client.IKE, policy); !n.OK {
			return fmt.Errorf("gateways with %s answer %v", name, n)
		}
		if n := ikev2.NegotiateChild(client.ESP, policy, false); len(policy.ESP) > 0 && !n.OK {
			return fmt.Errorf("for ESP, gateways with %s answer %v", name, n)
		}
		return nil
	}
}

// serverScript is what the gateways must be told for a profile.
func serverScript(p *profilexml.Profile) (string, error) {
	setup := profilexml.ServerSetup{Fragmentation: true}
	if n := p.NativeProfile; n != nil {
		setup.Suite = n.CryptographySuite
	}
	return setup.Script()
}
