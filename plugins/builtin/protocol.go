package builtin

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"
	"github.com/aovlb/aovlb/radius/radsec"
	"github.com/aovlb/aovlb/sstp"
)

// classifier returns what names the clients of a UDP listener.
func classifier(l *plugins.Listener, made *groupParts) lb.Classifier {
	a := made.affinity
	bySource := a == plugins.AffinitySource
	switch l.Protocol {
	case plugins.ProtocolIKEv2:
		if bySource {
			return ikev2.Classifier{Affinity: ikev2.AffinitySource}
		}
		return ikev2.Classifier{}
	case plugins.ProtocolRADIUS:
		if bySource {
			return lb.ByAddr{}
		}
		return made.radius.classifier()
	}
	return lb.ByAddr{}
}

// sniffer returns what names the clients of a TCP listener.
func sniffer(l *plugins.Listener, a plugins.Affinity) lb.Sniffer {
	if l.Protocol == plugins.ProtocolSSTP && a != plugins.AffinitySource {
		return sstp.Sniffer{}
	}
	return lb.ByAddr{}
}

// prober returns what asks for a check, whose secret has been read.
func prober(c *plugins.Check, secret, password []byte, own ownSecrets) (lb.Prober, error) {
	switch c.Type {
	case plugins.CheckIKEv2:
		return &ikev2.Prober{Strict: c.Strict}, nil
	case plugins.CheckSSTP:
		return &sstp.Prober{Question: sstpQuestion(c), ServerName: c.Host, Verify: c.VerifyTLS, PlainHTTP: c.PlainHTTP, Expect: c.Expect}, nil
	case plugins.CheckRADIUS:
		p := &radius.Prober{
			Secret: radius.NewSecret(secret), SecretOf: own.of, User: c.User, Accounting: c.Accounting,
			RequireMessageAuthenticator: c.RequireMessageAuthenticator, StatusServer: c.StatusServer,
		}
		if len(password) > 0 {
			return &radius.LoginProber{Prober: *p, Password: radius.NewSecret(password)}, nil
		}
		return p, nil
	case plugins.CheckRadSec:
		f, err := openTLS(c.RadSec, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		return &radsec.Prober{GetCertificate: f.client, GetRoots: f.roots, Peer: peerOf(c.RadSec.Names, c.RadSec.Fingerprints)}, nil
	case plugins.CheckTCP:
		return lb.ProberFunc(probeTCP), nil
	case plugins.CheckHTTPS:
		return &httpProber{host: c.Host, path: c.Path, expect: c.Expect, plain: c.PlainHTTP, verify: c.VerifyTLS}, nil
	case plugins.CheckICMP:
		return lb.ProberFunc(probeICMP), nil
	}
	return nil, fmt.Errorf("there is no check of type %q", c.Type)
}

// probeTCP opens a connection and closes it.
func probeTCP(ctx context.Context, target netip.AddrPort) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", target.String())
	if err != nil {
		return err
	}
	return c.Close()
}

// sstpQuestion returns what a check of SSTP asks.
func sstpQuestion(c *plugins.Check) sstp.Question {
	switch c.Ask {
	case plugins.AskCall:
		return sstp.AskCall
	case plugins.AskIPHTTPS:
		return sstp.AskIPHTTPS
	}
	return sstp.AskHead
}
