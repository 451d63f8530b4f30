// Package rest is what drivers of appliances share that are configured over HTTPS: a
// client that gives secrets to nobody else, and a pace.
package rest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"
)

// maxCAs bounds a file of CAs, in bytes.
const maxCAs = 4 << 20

// Client returns a client that verifies the appliance's certificate by the CAs of a
// PEM file, or those of the system if caFile is empty, and for serverName, or the
// name in the URL if that is empty. If use isn't nil it does what use does instead.
// Either way it follows no redirects, since passwords and tokens would follow them.
func Client(use *http.Client, caFile, serverName string) (*http.Client, error) {
	own := http.Client{}
	if use != nil {
		own = *use
	} else {
		t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName}
		if caFile != "" {
			pem, err := readFile(caFile)
			if err != nil {
				return nil, err
			}
			t.RootCAs = x509.NewCertPool()
			if !t.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("%s holds no certificate as PEM", caFile)
			}
		}
		// HTTP/1.1, in which the management of all of them is known to work.
		own.Transport = &http.Transport{
			Proxy: proxy, TLSClientConfig: t, TLSHandshakeTimeout: 15 * time.Second,
			MaxConnsPerHost: 4, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute,
		}
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &own, nil
}

// proxy is the one that the environment names. An error about it doesn't repeat it, for
// it may hold a password.
func proxy(req *http.Request) (*url.URL, error) {
	return unnamed(http.ProxyFromEnvironment(req))
}

func unnamed(u *url.URL, err error) (*url.URL, error) {
	if err != nil {
		return nil, errors.New("the environment names a proxy in HTTPS_PROXY that is no address")
	}
	return u, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxCAs+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(b) > maxCAs {
		return nil, fmt.Errorf("%s has more than %d bytes", name, maxCAs)
	}
	return b, nil
}

// A Pace spreads calls evenly. It may be used by several goroutines at once.
type Pace struct {
	// PerSecond is how many calls a second there may be; 0 means as many as come.
	PerSecond int

	mu   sync.Mutex
	next time.Time
}

// Wait waits until it is the caller's turn, or until ctx ends, whose cause it
// returns.
func (p *Pace) Wait(ctx context.Context) error {
	if p.PerSecond <= 0 {
		return context.Cause(ctx)
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	at := p.next
	p.next = at.Add(time.Second / time.Duration(p.PerSecond))
	p.mu.Unlock()
	return Sleep(ctx, at.Sub(now))
}

// Sleep waits for d, or until ctx ends, whose cause it returns.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
