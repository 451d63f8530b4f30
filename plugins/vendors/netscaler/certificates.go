package netscaler

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/aovlb/aovlb/plugins"
)

const maxPEM = 1 << 20 // bytes of a file of certificates

// mostFile is how long the name of a file may be.
const mostFile = 63

// nullCipher is the cipher suite without encryption that clients of DirectAccess
// ask for.
const nullCipher = "SSL3-NULL-SHA"

// readPEM reads a file of certificates, and perhaps a key. A certificate as DER is
// taken, too.
func readPEM(file string) (certs [][]byte, key []byte, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxPEM {
		return nil, nil, fmt.Errorf("%s is not a file of at most %d bytes", file, maxPEM)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	if c, err := x509.ParseCertificate(b); err == nil {
		return [][]byte{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})}, nil, nil
	}
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return certs, key, nil
		}
		switch {
		case block.Type == "CERTIFICATE":
			if _, err := x509.ParseCertificate(block.Bytes); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", file, err)
			}
			certs = append(certs, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: block.Bytes}))
		case bytes.HasSuffix([]byte(block.Type), []byte("PRIVATE KEY")):
			key = pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes, Headers: block.Headers})
		}
	}
}

// file renders a file whose name tells its content.
func (r *renderer) file(content []byte, from string, what ...string) *item {
	sum := sha256.Sum256(content)
	name := r.owner.Name(r.site.Name, mostFile-4, append(what, hex.EncodeToString(sum[:8]))...) + ".pem"
	it := &item{kind: kindOf("systemfile"), keys: []any{name, folder}, note: from}
	it.hide("filecontent", base64.StdEncoding.EncodeToString(content))
	it.hide("fileencoding", "BASE64")
	return it
}

func (r *renderer) path(file *item) string { return folder + "/" + plain(file.keys[0]) }

// certificate renders a certificate, those that it leads to, and its key. It
// returns the name of the first.
func (r *renderer) certificate(c *plugins.Certificate) (string, error) {
	if r.paper {
		it := &item{kind: kindOf("sslcertkey"), keys: []any{r.name("cert", c.Name)}, note: "certificate " + c.Name + ", copied there from " + c.CertFile}
		it.set("cert", folder+"/"+filepath.Base(c.CertFile))
		it.set("key", folder+"/"+filepath.Base(keyFile(c)))
		r.add(it)
		return plain(it.keys[0]), nil
	}
	certs, key, err := readPEM(c.CertFile)
	if err == nil && c.KeyFile != "" {
		_, key, err = readPEM(c.KeyFile)
	}
	switch {
	case err != nil:
		return "", fmt.Errorf("certificate %s: %w", c.Name, err)
	case len(certs) == 0:
		return "", fmt.Errorf("certificate %s: %s holds no certificate as PEM or DER", c.Name, c.CertFile)
	case key == nil:
		return "", fmt.Errorf("certificate %s: there is no private key as PEM in %s", c.Name, keyFile(c))
	}
	keyItem := r.file(key, "key of certificate "+c.Name, "key", c.Name)
	r.add(keyItem)
	linked := ""
	for i := len(certs) - 1; i >= 0; i-- {
		f := r.file(certs[i], "certificate "+c.Name, "cert", c.Name)
		it := &item{kind: kindOf("sslcertkey"), note: "certificate " + c.Name}
		it.set("cert", r.path(f))
		if i == 0 {
			it.keys = []any{r.name("cert", c.Name)}
			it.set("key", r.path(keyItem))
		} else {
			it.keys = []any{r.name("cert", c.Name, "issuer"+strconv.Itoa(i))}
		}
		it.set("linkcertkeyname", linked)
		linked = plain(it.keys[0])
		r.add(f, it)
	}
	return linked, nil
}

func keyFile(c *plugins.Certificate) string {
	if c.KeyFile != "" {
		return c.KeyFile
	}
	return c.CertFile
}

// authorities renders the CAs of a file, and returns their names.
func (r *renderer) authorities(file string) ([]string, error) {
	if list, ok := r.cas[file]; ok {
		return list, nil
	}
	var certs [][]byte
	var err error
	if r.paper {
		certs = [][]byte{nil}
	} else if certs, _, err = readPEM(file); err == nil && len(certs) == 0 {
		err = errors.New(file + " holds no certificate as PEM or DER")
	}
	if err != nil {
		return nil, fmt.Errorf("read CAs: %w", err)
	}
	var names []string
	for _, c := range certs {
		it := &item{kind: kindOf("sslcertkey"), note: "a CA of " + file}
		if r.paper {
			it.keys = []any{r.name("ca", filepath.Base(file))}
			it.set("cert", folder+"/"+filepath.Base(file))
		} else {
			sum := sha256.Sum256(c)
			f := r.file(c, "a CA of "+file, "ca")
			it.keys = []any{r.name("ca", hex.EncodeToString(sum[:8]))}
			it.set("cert", r.path(f))
			r.add(f)
		}
		r.add(it)
		names = append(names, plain(it.keys[0]))
	}
	r.cas[file] = names
	return names, nil
}
