package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// defaultAdmin is where the API is looked for if nobody says.
const defaultAdmin = "unix:/run/aovlb/admin.sock"

// remote is the admin API of a running aovlb, as commands see it.
type remote struct {
	listen, tokenFile *string
	env               *environment
}

// flags adds to fs the options that say where the API is.
func (e *environment) flags(fs *flag.FlagSet) *remote {
	return &remote{
		env:       e,
		listen:    fs.String("admin", cmp.Or(e.getenv("AOVLB_ADMIN"), defaultAdmin), "where the admin API `listens`: unix:PATH or ADDRESS:PORT"),
		tokenFile: fs.String("token-file", e.getenv("AOVLB_TOKEN_FILE"), "`file` with the token for the admin API"),
	}
}

// open sends a request and returns the answer, whose body the caller closes.
func (r *remote) open(ctx context.Context, method, path string, body any) (*http.Response, error) {
	network, addr, err := listenAddr(*r.listen)
	if err != nil {
		return nil, &usageError{"-admin: " + err.Error()}
	}
	var b io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		b = bytes.NewReader(text)
	}
	host := addr
	if network == "unix" {
		host = "aovlb"
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, b)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	if *r.tokenFile != "" {
		token, err := plugins.Secret{File: *r.tokenFile}.Read()
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+string(token))
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, addr)
		},
		DisableKeepAlives: true,
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("the admin API at %s can be used only by the user aovlb runs as, and root: %w", *r.listen, err)
		}
		return nil, fmt.Errorf("no aovlb answers at %s; is it running, and is this its admin.listen? %w", *r.listen, err)
	}
	return res, nil
}

// call sends a request and reads the answer into out.
func (r *remote) call(ctx context.Context, method, path string, body, out any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	res, err := r.open(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		if err := json.NewDecoder(res.Body).Decode(out); err != nil {
			return fmt.Errorf("read the answer of the admin API: %w", err)
		}
		return nil
	}
	var p problem
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&p); err != nil || p.Error == "" {
		return fmt.Errorf("the admin API answers %s", res.Status)
	}
	if len(p.Faults) > 0 {
		return fmt.Errorf("%s:\n%w", p.Error, &Faults{File: p.File, List: p.Faults})
	}
	return errors.New(p.Error)
}
