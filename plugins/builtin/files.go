package builtin

import (
	"errors"
	"fmt"

	"github.com/aovlb/aovlb/plugins"
)

// ReadFiles reads what dep refers to for the site that this driver serves, as Apply
// does, and uses none of it: certificates and their keys, CAs, lists of revoked
// certificates, secrets, and what StateDir keeps of certificates. The error has a
// *plugins.FieldError for everything that Apply would refuse; is errors.Is
// [plugins.ErrUnset] or fs.ErrPermission true of one, then another process may
// find it otherwise. What Validate finds isn't among them.
func (d *Driver) ReadFiles(dep *plugins.Deployment) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	site, n, err := d.siteOf(dep)
	if err != nil {
		return nil // Validate says so
	}
	at := fmt.Sprintf("sites[%d]", n)
	var errs []error
	for i := range site.Certificates {
		errs = append(errs, d.readRing(site.Name, &site.Certificates[i], fmt.Sprintf("%s.certificates[%d]", at, i)))
	}
	for i := range site.Pools {
		own, _ := ownSecretsOf(site, at, &site.Pools[i]) // readGroup says what is wrong
		_, err := checksOf(&site.Pools[i], fmt.Sprintf("%s.pools[%d]", at, i), own)
		errs = append(errs, err)
	}
	for i := range site.Groups {
		errs = append(errs, d.readGroup(site.Name, &site.Groups[i], fmt.Sprintf("%s.groups[%d]", at, i)))
	}
	return errors.Join(errs...)
}

// readRing reads a certificate, and what is kept of those before it.
func (d *Driver) readRing(site string, spec *plugins.Certificate, at string) error {
	_, err := readCertificate(spec, at)
	if _, kept := d.newRing(site, spec); kept != nil {
		err = errors.Join(err, &plugins.FieldError{Path: at, Err: kept})
	}
	return err
}

// readGroup reads the files of a group and of its listeners.
func (d *Driver) readGroup(site string, g *plugins.Group, at string) error {
	var errs []error
	if g.Proxies() {
		_, err := readParties(g, at+".radius")
		errs = append(errs, err)
		if certsOf(g) != "" {
			_, err := openTLS(g.RADIUS.RadSec, d.logger())
			errs = append(errs, beneath(at+".radius.radsec.", err))
		}
	}
	if _, err := d.ledgerFolder(site, g); err != nil {
		errs = append(errs, &plugins.FieldError{Path: at + ".radius.accounting.directory", Err: err})
	}
	for i := range g.Listeners {
		_, err := loadTLS(&g.Listeners[i], fmt.Sprintf("%s.listeners[%d].tls", at, i))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
