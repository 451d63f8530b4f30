package sstp

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// Path is the resource that SSTP asks for (MS-SSTP §3.2.4.1), with its braces as
// they are sent: net/http would escape them.
const Path = "/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/"

// maxHead bounds what is read of an answer. That of Windows has some 150 bytes.
const maxHead = 8 << 10

// head is the head of an HTTP answer, as far as it matters here. net/http's
// parser isn't used, because it refuses the Content-Length of SSTP,
// 18446744073709551615, and the full protocol will need this one.
type head struct {
	status int
	reason string // may be empty, as from Windows
	server string
}

// errNotHTTP says that an answer doesn't begin like one of HTTP/1.
var errNotHTTP = errors.New("not HTTP/1")

// headEnd returns where the head ends in b: behind the empty line. It returns
// -1 if b doesn't hold the whole head. A bare LF ends a line too.
func headEnd(b []byte) int {
	for at := 0; ; {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return -1
		}
		at += i + 1
		switch rest := b[at:]; {
		case bytes.HasPrefix(rest, []byte("\n")):
			return at + 1
		case bytes.HasPrefix(rest, []byte("\r\n")):
			return at + 2
		}
	}
}

// headMayEnd reports whether the head may end in what has come after the first old
// bytes of b. It is for heads that come in many pieces, which would cost the square
// of their length if each piece had the whole head parsed.
func headMayEnd(b []byte, old int) bool {
	b = b[max(old-2, 0):]
	return bytes.Contains(b, []byte("\n\n")) || bytes.Contains(b, []byte("\n\r\n"))
}

// couldBeHTTP reports whether b may be the beginning of an HTTP/1 answer.
func couldBeHTTP(b []byte) bool {
	const start = "HTTP/1."
	n := min(len(b), len(start))
	return string(b[:n]) == start[:n]
}

// parseHead reads a head. What comes after the status line is optional, so that
// an answer that is cut off there still tells its status. Header lines that
// can't be understood are passed over.
func parseHead(b []byte) (head, error) {
	line, rest, whole := bytes.Cut(b, []byte("\n"))
	if !whole {
		return head{}, fmt.Errorf("%w: no whole status line", errNotHTTP)
	}
	var h head
	var err error
	if h.status, h.reason, err = parseStatusLine(bytes.TrimSuffix(line, []byte("\r"))); err != nil {
		return head{}, err
	}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		if h.server == "" && bytes.EqualFold(name, []byte("Server")) {
			h.server = string(bytes.TrimSpace(value))
		}
	}
	return h, nil
}

// parseStatusLine reads "HTTP/1.1 401 Unauthorized". The phrase, and even the
// space before it, may be missing (RFC 9112 §4 wants the space).
func parseStatusLine(line []byte) (status int, reason string, err error) {
	const version = len("HTTP/1.1")
	if !couldBeHTTP(line) || len(line) < version+4 || line[version] != ' ' {
		return 0, "", errNotHTTP
	}
	code := line[version+1:]
	if len(code) > 3 && code[3] != ' ' {
		return 0, "", fmt.Errorf("%w: the status isn't three digits", errNotHTTP)
	}
	status, err = strconv.Atoi(string(code[:3]))
	if err != nil || status < 100 {
		return 0, "", fmt.Errorf("%w: the status isn't three digits", errNotHTTP)
	}
	return status, string(bytes.TrimSpace(code[3:])), nil
}
