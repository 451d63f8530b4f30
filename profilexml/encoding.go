package profilexml

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// An Encoding is how the bytes of a file stand for its text.
type Encoding uint8

const (
	// UTF8 is what every channel takes.
	UTF8 Encoding = iota
	// UTF8BOM is UTF-8 after a byte order mark, as Windows PowerShell 5.1
	// writes it.
	UTF8BOM
	// UTF16LE is UTF-16, little end first, after a byte order mark: what
	// Out-File of Windows PowerShell 5.1 writes unless told otherwise.
	UTF16LE
	// UTF16BE is UTF-16, big end first, after a byte order mark.
	UTF16BE
	// UTF16LENoBOM and UTF16BENoBOM are the same without the mark.
	UTF16LENoBOM
	UTF16BENoBOM
)

var encodingNames = [...]string{"UTF-8", "UTF-8 with a byte order mark", "UTF-16LE", "UTF-16BE", "UTF-16LE without a byte order mark", "UTF-16BE without a byte order mark"}

func (e Encoding) String() string {
	if int(e) < len(encodingNames) {
		return encodingNames[e]
	}
	return fmt.Sprintf("Encoding(%d)", uint8(e))
}

// wide reports whether e takes two bytes or more for a character.
func (e Encoding) wide() bool { return e >= UTF16LE }

// mark returns the byte order mark that e begins with.
func (e Encoding) mark() string {
	switch e {
	case UTF8BOM:
		return "\xef\xbb\xbf"
	case UTF16LE:
		return "\xff\xfe"
	case UTF16BE:
		return "\xfe\xff"
	default:
		return ""
	}
}

func (e Encoding) order() binary.AppendByteOrder {
	if e == UTF16BE || e == UTF16BENoBOM {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

// detect says how b is encoded, by its first bytes, as XML 1.0 appendix F does.
func detect(b []byte) Encoding {
	for _, e := range []Encoding{UTF8BOM, UTF16LE, UTF16BE} {
		if bytes.HasPrefix(b, []byte(e.mark())) {
			return e
		}
	}
	// A file begins with < or white space, and XML has no NUL.
	switch {
	case len(b) > 1 && b[0] != 0 && b[1] == 0:
		return UTF16LENoBOM
	case len(b) > 1 && b[0] == 0 && b[1] != 0:
		return UTF16BENoBOM
	}
	return UTF8
}

var errOddBytes = errors.New("it is UTF-16 with an odd number of bytes: its end was cut off")

// decodeBytes returns the text of b and how it was encoded. It fails where the
// text would not encode to the same bytes again.
func decodeBytes(b []byte) (string, Encoding, error) {
	e := detect(b)
	b = b[len(e.mark()):]
	if !e.wide() {
		if at := invalidUTF8(b); at >= 0 {
			return "", e, fmt.Errorf("byte %d is not UTF-8: save the file as UTF-8", at+len(e.mark())+1)
		}
		return string(b), e, nil
	}
	if len(b)%2 != 0 {
		return "", e, errOddBytes
	}
	text, at := decodeUTF16(b, e)
	if at >= 0 {
		return "", e, fmt.Errorf("byte %d is half of a character in UTF-16: save the file as UTF-8", at+len(e.mark())+1)
	}
	return text, e, nil
}

func invalidUTF8(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	at := 0
	for at < len(b) {
		r, n := utf8.DecodeRune(b[at:])
		if r == utf8.RuneError && n == 1 {
			break
		}
		at += n
	}
	return at
}

// decodeUTF16 returns the text, or where it is broken.
func decodeUTF16(b []byte, e Encoding) (string, int) {
	text := make([]byte, 0, len(b)/2)
	unit := func(i int) rune {
		if e.order() == binary.AppendByteOrder(binary.BigEndian) {
			return rune(b[i])<<8 | rune(b[i+1])
		}
		return rune(b[i+1])<<8 | rune(b[i])
	}
	for i := 0; i < len(b); i += 2 {
		r := unit(i)
		if utf16.IsSurrogate(r) {
			if i+4 > len(b) {
				return "", i
			}
			if r = utf16.DecodeRune(r, unit(i+2)); r == utf8.RuneError {
				return "", i
			}
			i += 2
		}
		text = utf8.AppendRune(text, r)
	}
	return string(text), -1
}

// appendEncoded appends text as e has it.
func appendEncoded(b []byte, text string, e Encoding) []byte {
	if !e.wide() {
		return append(b, text...)
	}
	order := e.order()
	for _, r := range text {
		if hi, lo := utf16.EncodeRune(r); hi != utf8.RuneError {
			b = order.AppendUint16(order.AppendUint16(b, uint16(hi)), uint16(lo))
			continue
		}
		b = order.AppendUint16(b, uint16(r))
	}
	return b
}
