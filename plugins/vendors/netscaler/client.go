package netscaler

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/vendors/rest"
)

// NITRO's numbers of errors that the driver knows.
const (
	codeMissing = 258 // no such resource
	codeSession = 444 // the session has ended
)

const (
	maxAnswer     = 32 << 20         // bytes
	patience      = 30 * time.Second // for one request
	sessionLength = 1800             // seconds without a request that a session lasts
	tries         = 3                // of a request that only reads
)

// A nitroError is an error that the appliance answered with.
type nitroError struct {
	Code     int    `json:"errorcode"`
	Message  string `json:"message"`
	Severity string `json:"severity"`
	status   int
	what     string
}

func (e *nitroError) Error() string {
	return fmt.Sprintf("%s: the appliance says %q (error %d, HTTP %d)", e.what, e.Message, e.Code, e.status)
}

func hasCode(err error, codes ...int) bool {
	e, ok := errors.AsType[*nitroError](err)
	return ok && slices.Contains(codes, e.Code)
}

// client speaks NITRO.
type client struct {
	http     *http.Client
	base     string
	user     string
	password plugins.Secret
	pace     rest.Pace

	mu    sync.Mutex // held while a session is begun
	token string
}

// session returns a session's token. spent is one that has ended.
func (c *client) session(ctx context.Context, spent string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != "" && c.token != spent {
		return c.token, nil
	}
	password, err := c.password.Read()
	if err != nil {
		return "", err
	}
	c.token = ""
	var out struct {
		ID string `json:"sessionid"`
	}
	body := map[string]any{"login": map[string]any{"username": c.user, "password": string(password), "timeout": sessionLength}}
	what := "log in as " + c.user
	cookie, err := c.once(ctx, http.MethodPost, "config/login", what, body, "", &out)
	if err != nil {
		return "", hide(err, []string{string(password)})
	}
	if c.token = out.ID; c.token == "" {
		c.token = cookie
	}
	if c.token == "" {
		return "", errors.New(what + ": the appliance gives no session")
	}
	return c.token, nil
}

// hide removes secrets from what the appliance said.
func hide(err error, secrets []string) error {
	if e, ok := errors.AsType[*nitroError](err); ok {
		e.Message = rest.Hide(e.Message, secrets...)
	}
	return err
}

// do makes a request, in a session. One that only reads is made again if the
// connection fails.
func (c *client) do(ctx context.Context, method, path, what string, body, out any) error {
	spent := ""
	for try := 1; ; try++ {
		token, err := c.session(ctx, spent)
		if err == nil {
			_, err = c.once(ctx, method, path, what, body, token, out)
			err = hide(err, []string{token})
		}
		_, said := errors.AsType[*nitroError](err)
		switch {
		case err == nil || ctx.Err() != nil || try == tries:
			return err
		case hasCode(err, codeSession) && spent == "":
			spent = token // it was refused, so nothing was done
		case !said && method == http.MethodGet:
			if err := rest.Sleep(ctx, time.Duration(try)*100*time.Millisecond); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// once makes a request. It returns the token that the appliance set, if any.
func (c *client) once(ctx context.Context, method, path, what string, body any, token string, out any) (string, error) {
	if err := c.pace.Wait(ctx); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return "", fmt.Errorf("%s: %w", what, err)
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/nitro/v1/"+path, in)
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.AddCookie(&http.Cookie{Name: "NITRO_AUTH_TOKEN", Value: token})
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // the address has what is in its query
		}
		return "", fmt.Errorf("%s: %w", what, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("%s: %w", what, err)
	case len(b) > maxAnswer:
		return "", fmt.Errorf("%s: the answer has more than %d bytes", what, maxAnswer)
	}
	set := ""
	for _, k := range resp.Cookies() {
		if k.Name == "NITRO_AUTH_TOKEN" {
			set = k.Value
		}
	}
	return set, judge(resp.StatusCode, b, what, out)
}

// judge reads an answer.
func judge(status int, b []byte, what string, out any) error {
	e := &nitroError{status: status, what: what}
	if len(bytes.TrimSpace(b)) > 0 {
		if err := json.Unmarshal(b, e); err != nil {
			return fmt.Errorf("%s: HTTP %d, and the answer is no JSON of NITRO: %w", what, status, err)
		}
	}
	if e.Code == 0 && status == http.StatusUnauthorized {
		e.Code = codeSession
	}
	if status/100 != 2 || e.Code != 0 && e.Severity != "WARNING" { // what it warns of was done
		return e
	}
	if out == nil || len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(out); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// row is an object as NITRO shows it.
type row map[string]any

// text returns a field as text; lists have commas between.
func (r row) text(field string) string {
	switch v := r[field].(type) {
	case nil:
		return ""
	case string:
		return v
	case []string:
		return strings.Join(v, ",")
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = fmt.Sprint(v[i])
		}
		return strings.Join(parts, ",")
	default:
		return fmt.Sprint(v)
	}
}

// list reads the objects of a kind: all, or those of one name. Those that aren't
// there are none.
func (c *client) list(ctx context.Context, area, kind, name string, args ...string) ([]row, error) {
	path := area + "/" + kind
	if name != "" {
		path += "/" + url.PathEscape(name)
	}
	var out map[string]json.RawMessage
	err := c.do(ctx, http.MethodGet, path+query(args), "read "+kind, nil, &out)
	if hasCode(err, codeMissing) && name+query(args) != "" {
		return nil, nil
	}
	if err != nil || out[kind] == nil {
		return nil, err
	}
	var rows []row
	raw := bytes.TrimSpace(out[kind])
	if len(raw) > 0 && raw[0] == '{' {
		raw = slices.Concat([]byte("["), raw, []byte("]")) // a single one may come without a list
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&rows); err != nil {
		return nil, fmt.Errorf("read %s: %w", kind, err)
	}
	return rows, nil
}

// query returns k, v, k, v as NITRO's args.
func query(args []string) string {
	var pairs []string
	for i := 0; i+1 < len(args); i += 2 {
		pairs = append(pairs, args[i]+":"+url.QueryEscape(args[i+1]))
	}
	if len(pairs) == 0 {
		return ""
	}
	return "?args=" + strings.Join(pairs, ",")
}

// save has the appliance keep its configuration.
func (c *client) save(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "config/nsconfig?action=save", "save the configuration", map[string]any{"nsconfig": map[string]any{}}, nil)
}

// logout ends the session.
func (c *client) logout(ctx context.Context) error {
	c.mu.Lock()
	token := c.token
	c.token = ""
	c.mu.Unlock()
	if token == "" {
		return nil
	}
	_, err := c.once(ctx, http.MethodPost, "config/logout", "log out", map[string]any{"logout": map[string]any{}}, token, nil)
	return err
}
