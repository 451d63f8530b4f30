package f5

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aovlb/aovlb/plugins/vendors/rest"
)

// maxBody bounds an answer, in bytes.
const maxBody = 32 << 20

// tries is how often a request is made that may be repeated.
const tries = 4

// client speaks REST with a BIG-IP.
type client struct {
	settings Settings
	http     *http.Client
	pace     rest.Pace
	// pause is what is waited before something is tried again, at first.
	pause time.Duration

	mu    sync.Mutex // guards token
	token string
}

// newClient returns a client. A nil h means one that verifies the BIG-IP's
// certificate by the settings' CAs.
func newClient(s Settings, h *http.Client) (*client, error) {
	own, err := rest.Client(h, s.CAFile, "")
	if err != nil {
		return nil, err
	}
	if h == nil {
		own.Timeout = 2 * time.Minute
	}
	return &client{settings: s, http: own, pace: rest.Pace{PerSecond: s.Rate}, pause: 500 * time.Millisecond}, nil
}

// A statusError is an answer that isn't a success.
type statusError struct {
	status int
	what   string // which request
	text   string // what the BIG-IP says
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: the BIG-IP answers %d: %s", e.what, e.status, rest.Cut(e.text, maxText))
}

// maxText bounds what is repeated of what the BIG-IP says, in bytes.
const maxText = 1000

// hide removes secrets from all that the BIG-IP said in err.
func hide(err error, secrets ...string) error {
	switch e := err.(type) {
	case *statusError:
		e.text = rest.Hide(e.text, secrets...)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			_ = hide(inner, secrets...) // in place
		}
	case interface{ Unwrap() error }:
		_ = hide(e.Unwrap(), secrets...)
	}
	return err
}

// errUnreachable says that nobody knows whether a request was done.
var errUnreachable = errors.New("the BIG-IP can't be reached")

// statusOf returns the status that err is about, or 0.
func statusOf(err error) int {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status
	}
	return 0
}

// get reads path into out.
func (c *client) get(ctx context.Context, path string, query url.Values, out any) (int, error) {
	return c.do(ctx, call{method: http.MethodGet, path: path, query: query, again: true}, out)
}

// call is a request.
type call struct {
	method, path string
	query        url.Values
	body         any
	// again says that it may be made again though nobody knows whether it was
	// done.
	again bool
	// patient says that a busy BIG-IP is waited for as long as a task may take.
	patient bool
}

func (c call) String() string { return c.method + " " + c.path }

// do makes a request, logs in if need be, and reads the answer into out, which may
// be nil.
func (c *client) do(ctx context.Context, q call, out any) (int, error) {
	var body []byte
	if q.body != nil {
		var err error
		if body, err = json.Marshal(q.body); err != nil {
			return 0, fmt.Errorf("%v: %w", q, err)
		}
	}
	wait, began := c.pause, time.Now()
	for try := 1; ; try++ {
		status, err := c.authorized(ctx, q, body, out)
		again := err != nil && try < tries && ctx.Err() == nil
		switch {
		case statusOf(err) == http.StatusServiceUnavailable:
			// The BIG-IP is busy, or its REST service begins: nothing was done.
			again = again || q.patient && ctx.Err() == nil && time.Since(began) < c.settings.TaskTimeout.D()
		case statusOf(err) == http.StatusTooManyRequests:
		case statusOf(err) == http.StatusBadGateway || statusOf(err) == http.StatusGatewayTimeout || errors.Is(err, errUnreachable):
			again = again && q.again
		default:
			again = false
		}
		if !again {
			return status, err
		}
		if err := rest.Sleep(ctx, wait); err != nil {
			return status, err
		}
		wait = min(wait*2, 20*c.pause)
	}
}

// authorized makes a request with a token, and again with a new one if the BIG-IP
// doesn't know it any more.
func (c *client) authorized(ctx context.Context, q call, body []byte, out any) (int, error) {
	token, err := c.login(ctx, "")
	if err != nil {
		return 0, err
	}
	status, err := c.once(ctx, q, body, token, out)
	if statusOf(err) != http.StatusUnauthorized {
		return status, hide(err, token)
	}
	if token, err = c.login(ctx, token); err != nil {
		return 0, err
	}
	status, err = c.once(ctx, q, body, token, out)
	return status, hide(err, token)
}

// login returns a token other than stale.
func (c *client) login(ctx context.Context, stale string) (string, error) {
	c.mu.Lock()
	token := c.token
	c.mu.Unlock()
	if token != "" && token != stale {
		return token, nil
	}
	password, err := c.settings.Password.Read()
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(map[string]string{
		"username": c.settings.Username, "password": string(password), "loginProviderName": c.settings.LoginProvider,
	})
	if err != nil {
		return "", err
	}
	var out struct {
		Token struct {
			Token string `json:"token"`
		} `json:"token"`
	}
	q := call{method: http.MethodPost, path: "/mgmt/shared/authn/login"}
	if _, err := c.once(ctx, q, body, "", &out); err != nil {
		err = hide(err, string(password))
		if statusOf(err) == http.StatusUnauthorized {
			return "", fmt.Errorf("log in as %s: the BIG-IP refuses the name or the password in %v", c.settings.Username, c.settings.Password)
		}
		return "", fmt.Errorf("log in as %s: %w", c.settings.Username, err)
	}
	if out.Token.Token == "" {
		return "", fmt.Errorf("log in as %s: the BIG-IP gives no token", c.settings.Username)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token = out.Token.Token
	return c.token, nil
}

// once makes a request once.
func (c *client) once(ctx context.Context, q call, body []byte, token string, out any) (int, error) {
	if err := c.pace.Wait(ctx); err != nil {
		return 0, err
	}
	u := strings.TrimSuffix(c.settings.URL, "/") + q.path
	if len(q.query) > 0 {
		u += "?" + q.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, q.method, u, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("%v: %w", q, err)
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("X-F5-Auth-Token", token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return 0, fmt.Errorf("%w: %w", errUnreachable, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil && ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case err != nil:
		return 0, fmt.Errorf("%v: %w: its answer broke off: %w", q, errUnreachable, err)
	case len(b) > maxBody:
		return 0, fmt.Errorf("%v: the answer has more than %d bytes", q, maxBody)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return resp.StatusCode, &statusError{resp.StatusCode, q.String(), said(b)}
	}
	if out == nil || len(bytes.TrimSpace(b)) == 0 {
		return resp.StatusCode, nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return resp.StatusCode, fmt.Errorf("%v: what the BIG-IP answers isn't what it should be: %w", q, err)
	}
	return resp.StatusCode, nil
}

// said returns what an answer says is wrong. Only its messages are taken, for what
// else is in it may be a part of the request, with its secrets.
func said(b []byte) string {
	var x struct {
		Message string   `json:"message"`
		Errors  []string `json:"errors"`
		Results []result `json:"results"`
	}
	if json.Unmarshal(b, &x) != nil {
		return "something that isn't JSON"
	}
	words := []string{x.Message}
	for _, r := range x.Results {
		words = append(words, r.said())
	}
	words = append(words, x.Errors...)
	text := strings.TrimSpace(strings.Join(words, " "))
	if text == "" {
		return "nothing more"
	}
	return rest.Hide(text)
}
