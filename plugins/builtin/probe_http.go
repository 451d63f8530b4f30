package builtin

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
)

// httpProber asks a web server for a page.
type httpProber struct {
	host, path    string
	expect        int
	plain, verify bool
}

// maxPage bounds what is read of a page.
const maxPage = 64 << 10

// Probe gets the page, by a connection of its own, and follows no redirection.
func (p *httpProber) Probe(ctx context.Context, target netip.AddrPort) error {
	u := url.URL{Scheme: "https", Host: cmp.Or(p.host, target.String()), Path: cmp.Or(p.path, "/")}
	if p.plain {
		u.Scheme = "http"
	}
	if parsed, err := url.ParseRequestURI(cmp.Or(p.path, "/")); err == nil {
		u.Path, u.RawPath, u.RawQuery = parsed.Path, parsed.RawPath, parsed.RawQuery
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "aovlb")
	t := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, target.String())
		},
		// Gateways are asked by address, and often have certificates of a CA
		// that isn't known here.
		TLSClientConfig: &tls.Config{ServerName: p.host, InsecureSkipVerify: !p.verify, MinVersion: tls.VersionTLS12}, //nolint:gosec // see above
	}
	defer t.CloseIdleConnections()
	res, err := t.RoundTrip(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxPage))
	_ = res.Body.Close()
	switch {
	case p.expect != 0 && res.StatusCode != p.expect:
		return fmt.Errorf("it answers %d, not %d", res.StatusCode, p.expect)
	case p.expect == 0 && (res.StatusCode < 200 || res.StatusCode > 399):
		return fmt.Errorf("it answers %d", res.StatusCode)
	}
	return nil
}
