package kemp

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins/vendors/rest"
)

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 32 << 20

// tries is how often a question is asked that isn't answered.
const tries = 3

// params are those of a command: texts, and bytes for a file. What isn't to be said
// isn't there, so that zeros and empty texts can be said. Booleans are 1 and 0.
type params map[string]any

// flag is a boolean as the API takes it; it answers with Y and N.
func flag(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// client speaks the API. It may be used by several goroutines at once.
type client struct {
	settings Settings
	http     *http.Client
	pace     rest.Pace
}

// An apiError is what the LoadMaster says is wrong.
type apiError struct {
	command string
	code    int
	text    string
}

func (e *apiError) Error() string {
	return fmt.Sprintf("the LoadMaster refuses %s: %s (%d)", e.command, e.text, e.code)
}

// ask asks a question, which changes nothing. It is asked again if there is no
// answer.
func (c *client) ask(ctx context.Context, command string, p params) (*node, error) {
	for n := 1; ; n++ {
		out, err := c.call(ctx, command, p)
		var refused *apiError
		if err == nil || n == tries || ctx.Err() != nil || errors.As(err, &refused) && refused.code != http.StatusServiceUnavailable {
			return out, err
		}
		if err := rest.Sleep(ctx, time.Duration(n)*100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// do gives an order. It is given once, for nobody knows whether one without an
// answer was carried out.
func (c *client) do(ctx context.Context, command string, p params) (*node, error) {
	return c.call(ctx, command, p)
}

func (c *client) call(ctx context.Context, command string, p params) (*node, error) {
	if err := c.pace.Wait(ctx); err != nil {
		return nil, err
	}
	call, cancel := context.WithTimeout(ctx, c.settings.Timeout.D())
	defer cancel()
	req, secret, err := c.request(call, command, p)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var inner *url.Error // it would repeat the parameters
		if errors.As(err, &inner) {
			err = inner.Err
		}
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	_ = res.Body.Close() // it was read
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", command, err)
	case len(b) > maxAnswer:
		return nil, fmt.Errorf("%s: the answer has more than %d bytes", command, maxAnswer)
	}
	secrets := []string{secret}
	for _, v := range p {
		if file, ok := v.([]byte); ok {
			secrets = append(secrets, string(file))
		}
	}
	return c.answer(command, res, b, secrets)
}

// login returns who asks, and the secret that proves it.
func (c *client) login() (user, secret string, err error) {
	from := c.settings.APIKey
	if from.IsZero() {
		user, from = c.settings.User, c.settings.Password
	}
	b, err := from.Read()
	return user, string(b), err
}

func (c *client) request(ctx context.Context, command string, p params) (*http.Request, string, error) {
	user, secret, err := c.login()
	if err != nil {
		return nil, "", err
	}
	base := strings.TrimRight(c.settings.Address, "/")
	var req *http.Request
	if c.settings.API == APIv1 {
		req, err = requestV1(ctx, base, command, p)
		if err == nil {
			req.SetBasicAuth(user, secret)
		}
	} else {
		req, err = requestV2(ctx, base, command, user, secret, p)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", command, err)
	}
	return req, secret, nil
}

func requestV2(ctx context.Context, base, command, user, secret string, p params) (*http.Request, error) {
	body := map[string]any{"cmd": command}
	if user == "" {
		body["apikey"] = secret
	} else {
		body["apiuser"], body["apipass"] = user, secret
	}
	for name, v := range p {
		if file, ok := v.([]byte); ok {
			v = base64.StdEncoding.EncodeToString(file)
		}
		body[name] = v
	}
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/accessv2", bytes.NewReader(b))
	if err == nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, err
}

func requestV1(ctx context.Context, base, command string, p params) (*http.Request, error) {
	query, file := url.Values{}, []byte(nil)
	for name, v := range p {
		switch v := v.(type) {
		case []byte:
			file = v
		default:
			query.Set(name, fmt.Sprint(v))
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base+"/access/"+command+"?"+query.Encode(), bytes.NewReader(file))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req, err
}

// answer reads an answer.
func (c *client) answer(command string, res *http.Response, b []byte, secrets []string) (*node, error) {
	var n *node
	var code int
	var fault string
	var err error
	if c.settings.API == APIv1 {
		n, code, fault, err = parseXML(b)
	} else if n, err = parseJSON(b); err == nil {
		code, fault = int(n.number("code")), n.get("message")
	}
	if err != nil {
		code, fault = res.StatusCode, "" // a page for people, from something on the way
		if code == http.StatusOK {
			return nil, fmt.Errorf("%s: %w", command, err)
		}
	}
	if code >= 200 && code < 300 && res.StatusCode < 300 {
		return n, nil
	}
	if code < 300 {
		code = res.StatusCode
	}
	switch code {
	case http.StatusUnauthorized, http.StatusForbidden:
		fault = "the key, or the user and the password, aren't accepted: see also whether the API is enabled"
	case 0:
		fault = "it doesn't say why"
	}
	return nil, &apiError{command, code, tidy(fault, secrets, code)}
}

// maxFault bounds what is repeated of an error, in bytes.
const maxFault = 300

// tidy returns an error's text so that it can be shown.
func tidy(s string, secrets []string, code int) string {
	if s == "" {
		return http.StatusText(code)
	}
	return rest.Cut(rest.Hide(s, secrets...), maxFault)
}
