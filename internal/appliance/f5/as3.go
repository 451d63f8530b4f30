package f5

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// declare is AS3's endpoint for declarations.
func (b *Box) declare(r *http.Request, tenant string) (int, any, *fault) {
	switch r.Method {
	case http.MethodGet:
		if f := query(r, "show", "showHash", "age", "filterClass"); f != nil {
			return 0, nil, f
		}
		return b.stored(tenant, r.URL.Query().Get("showHash") == "true")
	case http.MethodPost:
		if f := query(r, "async", "controls.dryRun", "controls.logLevel", "controls.trace", "show", "showHash"); f != nil {
			return 0, nil, f
		}
		return b.post(r, tenant)
	}
	return 0, nil, refuse(405, "Method not allowed")
}

func (b *Box) stored(tenant string, hash bool) (int, any, *fault) {
	out := map[string]any{"class": "ADC", "schemaVersion": "3.50.0", "updateMode": "selective", "controls": map[string]any{"archiveTimestamp": "2026-01-01T00:00:00.000Z"}}
	for name, t := range b.tenants {
		if tenant != "" && tenant != name {
			continue
		}
		t = maps.Clone(t)
		if hash {
			t["optimisticLockKey"] = lock(t)
		}
		out[name] = t
	}
	if tenant != "" && out[tenant] == nil {
		return 0, nil, refuse(404, "specified Tenant(s) '%s' not found in declaration", tenant)
	}
	return 200, out, nil
}

func lock(t map[string]any) string {
	text, _ := json.Marshal(t)
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

func (b *Box) post(r *http.Request, tenant string) (int, any, *fault) {
	in, f := read(r, "class", "action", "persist", "declaration", "$schema", "logLevel", "trace", "historyLimit", "redeployAge", "syncToGroup")
	if f != nil {
		return 0, nil, refuse(422, "declaration is invalid: %s", f.text)
	}
	adc, _ := in["declaration"].(map[string]any)
	if in["class"] != "AS3" || in["action"] != "deploy" || adc["class"] != "ADC" {
		return 0, nil, refuse(422, "declaration is invalid: no class AS3 with a declaration of class ADC")
	}
	for _, t := range b.tasks {
		if t.done == nil {
			if t.left--; t.left <= 0 {
				t.finish() // nobody needs to ask for it
			}
			return 0, nil, refuse(503, "Configuration operation in progress on device, please try again in 2 minutes")
		}
	}
	names := strings.Split(tenant, ",")
	if errs := b.validate(adc, names); len(errs) > 0 {
		return 0, nil, &fault{status: 422, text: "declaration is invalid", errors: errs}
	}
	if r.URL.Query().Get("async") != "true" {
		return 0, nil, refuse(422, "this one has no patience for requests that aren't async")
	}
	dry := r.URL.Query().Get("controls.dryRun") == "true"
	for _, name := range names {
		want, _ := adc[name].(map[string]any)
		if key, _ := want["optimisticLockKey"].(string); key != "" && key != lock(b.tenants[name]) {
			return 0, nil, refuse(422, "tenant %s: the optimistic lock key doesn't match", name)
		}
	}
	b.serial++
	id := fmt.Sprintf("e2b7f0a4-0000-4000-8000-%012d", b.serial)
	t := &task{left: b.Polls}
	t.run = func() []any {
		var out []any
		for _, name := range slices.Sorted(slices.Values(names)) { // Common comes first, and what it loses goes last
			want, _ := adc[name].(map[string]any)
			out = append(out, b.deploy(name, want, dry))
		}
		return out
	}
	if dry {
		b.tasks[id] = t
	} else {
		b.write(func() { b.tasks[id] = t })
	}
	return 202, map[string]any{"id": id, "results": []any{map[string]any{"message": "Declaration successfully submitted", "tenant": "", "host": "", "runTime": 0, "code": 0}}, "declaration": map[string]any{}, "selfLink": "https://localhost/mgmt/shared/appsvcs/task/" + id}, nil
}

func (b *Box) task(id string) (int, any, *fault) {
	t := b.tasks[id]
	if t == nil {
		return 0, nil, refuse(404, "no task with ID %s", id)
	}
	if t.left > 0 {
		t.left--
		return 200, map[string]any{"id": id, "results": []any{map[string]any{"message": "in progress", "tenant": "", "host": "", "runTime": 0, "code": 0}}, "declaration": map[string]any{}}, nil
	}
	t.finish()
	return 200, map[string]any{"id": id, "results": t.done, "declaration": map[string]any{}}, nil
}

func (t *task) finish() {
	if t.done == nil {
		t.done = t.run()
	}
}

// deploy makes a tenant what it is to be, wholly or not at all.
func (b *Box) deploy(tenant string, want map[string]any, dry bool) map[string]any {
	result := func(code int, message string) map[string]any {
		return map[string]any{"code": code, "message": message, "tenant": tenant, "host": "localhost", "runTime": 700, "lineCount": 20}
	}
	if b.fail != "" && !dry && (b.failing == "" || b.failing == tenant) {
		r := result(422, "declaration failed")
		r["response"] = b.fail
		b.fail, b.failing = "", ""
		return r
	}
	virtuals, pools := derive(tenant, want)
	if why := b.clash(tenant, want); why != "" {
		r := result(422, "declaration failed")
		r["response"] = why
		return r
	}
	for path, v := range virtuals {
		for other, o := range b.virtuals {
			if tail(o.Destination) == tail(v.Destination) && o.Protocol == v.Protocol && !strings.HasPrefix(other, "/"+tenant+"/") {
				r := result(422, "declaration failed")
				r["response"] = fmt.Sprintf("01070333:3: Virtual Server %s illegally shares destination address, source address, service port, and ip-protocol with Virtual Server %s.", path, other)
				return r
			}
		}
	}
	want = encrypted(want).(map[string]any)
	delete(want, "optimisticLockKey")
	answers := deriveNames(tenant, want)
	if reflect.DeepEqual(want, b.tenants[tenant]) && reflect.DeepEqual(answers, within(b.names, tenant)) && reflect.DeepEqual(virtuals, within(b.virtuals, tenant)) && reflect.DeepEqual(pools, within(b.pools, tenant)) {
		return result(200, "no change")
	}
	if dry {
		r := result(200, "success")
		r["dryRun"] = true
		return r
	}
	replace(b.virtuals, virtuals, tenant)
	replace(b.pools, pools, tenant)
	replace(b.names, answers, tenant)
	if tenant == "Common" {
		b.topology = records(want)
	}
	delete(b.tenants, tenant)
	if len(want) > 1 {
		b.tenants[tenant] = want
	}
	return result(200, "success")
}

func tail(s string) string { return s[strings.LastIndexByte(s, '/')+1:] }

func within[T any](m map[string]T, tenant string) map[string]T {
	out := make(map[string]T)
	if tenant == "Common" {
		tenant += "/Shared" // the rest of it isn't AS3's
	}
	for k, v := range m {
		if strings.HasPrefix(k, "/"+tenant+"/") {
			out[k] = v
		}
	}
	return out
}

func replace[T any](m, by map[string]T, tenant string) {
	for k := range within(m, tenant) {
		delete(m, k)
	}
	maps.Copy(m, by)
}

// encrypted returns a copy in which secrets are as AS3 keeps them.
func encrypted(v any) any {
	switch x := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(x))
		for k, y := range x {
			out[k] = encrypted(y)
		}
		if c, ok := x["ciphertext"].(string); ok {
			sum := sha256.Sum256([]byte("a key of this box " + c))
			out["ciphertext"], out["protected"] = "JE0k"+hex.EncodeToString(sum[:8]), "eyJhbGciOiJkaXIiLCJlbmMiOiJmNXN2In0"
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i := range x {
			out[i] = encrypted(x[i])
		}
		return out
	}
	return v
}

// derive makes virtual servers and pools of a tenant.
func derive(tenant string, want map[string]any) (map[string]*Virtual, map[string]*Pool) {
	virtuals, pools := make(map[string]*Virtual), make(map[string]*Pool)
	for app, a := range want {
		items, ok := a.(map[string]any)
		if !ok || items["class"] != "Application" {
			continue
		}
		for name, i := range items {
			x, ok := i.(map[string]any)
			if !ok {
				continue
			}
			path := "/" + tenant + "/" + app + "/" + name
			switch x["class"] {
			case "Service_TCP", "Service_UDP":
				virtuals[path] = virtual(tenant, app, path, x)
			case "Pool":
				pools[path] = pool(path, x)
			}
		}
	}
	return virtuals, pools
}

func whole(v any, standard int) int {
	if f, ok := v.(float64); ok {
		return int(f)
	}
	return standard
}

func text(v any, standard string) string {
	if s, ok := v.(string); ok {
		return s
	}
	return standard
}

func address(host string, port int) string {
	if strings.Contains(host, ":") {
		return host + "." + strconv.Itoa(port)
	}
	return host + ":" + strconv.Itoa(port)
}

func virtual(tenant, app, path string, x map[string]any) *Virtual {
	list, _ := x["virtualAddresses"].([]any)
	if len(list) == 0 {
		return &Virtual{Path: path}
	}
	v := &Virtual{Path: path, Destination: "/" + tenant + "/" + address(text(list[0], ""), whole(x["virtualPort"], 0)), Protocol: "tcp", Limit: whole(x["maxConnections"], 0)}
	if x["class"] == "Service_UDP" {
		v.Protocol = "udp"
	}
	if p := text(x["pool"], ""); p != "" {
		v.Pool = "/" + tenant + "/" + app + "/" + p
	}
	// What AS3 does where nothing is said.
	v.Snat = map[string]string{"auto": "automap", "none": "none", "self": "automap"}[text(x["snat"], "auto")]
	v.Persist = "source_addr"
	if methods, ok := x["persistenceMethods"].([]any); ok {
		v.Persist = ""
		for _, m := range methods {
			use, _ := m.(map[string]any)
			v.Persist = text(use["use"], text(m, ""))
		}
	}
	for _, k := range []string{"profileUDP", "profileTCP", "profileRADIUS"} {
		if use, ok := x[k].(map[string]any); ok {
			v.Profiles = append(v.Profiles, text(use["use"], ""))
		}
	}
	return v
}

func pool(path string, x map[string]any) *Pool {
	p := &Pool{Path: path, Method: text(x["loadBalancingMode"], "round-robin"), Active: whole(x["minimumMembersActive"], 1), Ramp: whole(x["slowRampTime"], 10)}
	list, _ := x["members"].([]any)
	for _, i := range list {
		m, _ := i.(map[string]any)
		addresses, _ := m["serverAddresses"].([]any)
		for _, a := range addresses {
			y := &Member{
				Name: address(text(a, ""), whole(m["servicePort"], 0)), Address: text(a, ""), Ratio: whole(m["ratio"], 1), Priority: whole(m["priorityGroup"], 0),
				Limit: whole(m["connectionLimit"], 0), Session: "monitor-enabled", State: "up",
			}
			switch text(m["adminState"], "enable") {
			case "disable":
				y.Session = "user-disabled"
			case "offline":
				y.Session, y.State = "user-disabled", "user-down"
			}
			p.Members = append(p.Members, y)
		}
	}
	return p
}

var (
	nameForm   = regexp.MustCompile(`^[A-Za-z]([0-9A-Za-z_.-]{0,188}[0-9A-Za-z_.])?$`)
	remarkForm = regexp.MustCompile(`^[^\x00-\x1f"\\\x7f]{0,64}$`)
)

// validate says what AS3, and this package's strictness, find wrong.
func (b *Box) validate(adc map[string]any, tenants []string) []string {
	var errs []string
	bad := func(format string, args ...any) { errs = append(errs, fmt.Sprintf(format, args...)) }
	for k, v := range adc {
		if slices.Contains([]string{"class", "schemaVersion", "id", "label", "remark", "updateMode", "controls", "$schema"}, k) {
			continue
		}
		t, _ := v.(map[string]any)
		if t["class"] != "Tenant" || !nameForm.MatchString(k) {
			bad("/%s: is no Tenant", k)
			continue
		}
		if !slices.Contains(tenants, k) {
			bad("/%s: the request is for %s", k, strings.Join(tenants, ","))
			continue
		}
		for name, a := range t {
			if k == "Common" && name != "class" && name != "Shared" && name != "optimisticLockKey" {
				bad("/Common/%s: Common has one Application, Shared", name)
				continue
			}
			b.validateApp("/"+k+"/"+name, name, a, adc, bad)
		}
	}
	if adc["updateMode"] == "complete" {
		bad("/updateMode: this would remove what others have")
	}
	return errs
}

func (b *Box) validateApp(at, name string, v any, adc map[string]any, bad func(string, ...any)) {
	switch name {
	case "class", "label", "remark", "enable", "optimisticLockKey", "constants":
		return
	}
	a, ok := v.(map[string]any)
	if !ok || a["class"] != "Application" || !nameForm.MatchString(name) {
		bad("%s: is no Application", at)
		return
	}
	for k, v := range a {
		if slices.Contains([]string{"class", "template", "label", "remark", "enable"}, k) {
			continue
		}
		x, ok := v.(map[string]any)
		if !ok || !nameForm.MatchString(k) {
			bad("%s/%s: is nothing that an Application has", at, k)
			continue
		}
		if strings.HasPrefix(text(x["class"], ""), "GSLB_") {
			b.validateGlobal(at+"/"+k, x, a, adc, bad)
			continue
		}
		validateItem(at+"/"+k, x, a, bad)
	}
}

// bare are pointers that are only a name.
var bare = []string{"pool", "serverTLS", "clientTLS", "authenticationTrustCA", "iRule", "certificates"}

// classOf returns the class of an object, and checks that it has none but the class's
// properties. It is false if there is no such class.
func classOf(at string, x map[string]any, bad func(string, ...any)) (class string, ok bool) {
	class = text(x["class"], "")
	known := class
	if class == "Monitor" || class == "GSLB_Monitor" {
		known += " " + text(x["monitorType"], "")
	}
	if keys[known] == "" {
		bad("%s/class: %q is unknown", at, known)
		return class, false
	}
	strict(at, known, x, bad)
	return class, true
}

// strict checks that an object has none but the properties of what it is known as.
func strict(at, known string, x map[string]any, bad func(string, ...any)) {
	for k := range x {
		if !knows(known, k) {
			bad("%s: should NOT have additional property %q", at, k)
		}
	}
}

// validateItem checks one object: its properties, values and pointers.
func validateItem(at string, x, app map[string]any, bad func(string, ...any)) {
	class, ok := classOf(at, x, bad)
	if !ok {
		return
	}
	if r, ok := x["remark"].(string); ok && !remarkForm.MatchString(r) {
		bad("%s/remark: should match pattern", at)
	}
	points := func(k string, v any, classes ...string) {
		if use, ok := v.(map[string]any); ok {
			if slices.Contains(bare, k) {
				bad("%s/%s: should be string", at, k)
			}
			v = use["use"]
		}
		target, _ := app[text(v, "")].(map[string]any)
		if !slices.Contains(classes, text(target["class"], "")) {
			bad("%s/%s: contains path to non-existent object %v", at, k, v)
		}
	}
	validatePointers(x, points)
	switch class {
	case "Pool":
		validateMembers(at, x, bad)
	case "Radius_Profile":
		if n, ok := x["persistAttribute"].(float64); !ok || n < 1 || n > 255 {
			bad("%s/persistAttribute: should match exactly one schema in oneOf", at)
		}
	case "Persist":
		if n := whole(x["duration"], 0); n < 0 || n > 604800 {
			bad("%s/duration: should be <= 604800", at)
		}
	case "Monitor":
		if whole(x["timeout"], 16) > 900 || whole(x["timeUntilUp"], 0) > 1800 || whole(x["interval"], 5) > 3600 {
			bad("%s: a time is out of range", at)
		}
	case "Service_TCP", "Service_UDP":
		if dns, ok := x["profileDNS"].(map[string]any); ok && dns["bigip"] != "/Common/dns" {
			bad("%s/profileDNS: contains path to non-existent object", at)
		}
	case "Certificate":
		if !strings.Contains(text(x["certificate"], ""), "-----BEGIN CERTIFICATE-----") || !strings.Contains(text(x["privateKey"], ""), "PRIVATE KEY-----") {
			bad("%s: is no certificate with a key", at)
		}
	}
}

func validatePointers(x map[string]any, points func(string, any, ...string)) {
	for k, classes := range map[string][]string{
		"pool": {"Pool"}, "profileUDP": {"UDP_Profile"}, "profileTCP": {"TCP_Profile"}, "profileRADIUS": {"Radius_Profile"}, "serverTLS": {"TLS_Server"},
		"clientTLS": {"TLS_Client"}, "authenticationTrustCA": {"CA_Bundle"},
	} {
		if v, ok := x[k]; ok {
			points(k, v, classes...)
		}
	}
	if v, ok := x["trustCA"]; ok && v != "generic" {
		points("trustCA", v, "CA_Bundle")
	}
	if v, ok := x["iRule"]; ok && x["class"] == "Persist" {
		points("iRule", v, "iRule")
	}
	for k, class := range map[string]string{"monitors": "Monitor", "persistenceMethods": "Persist"} {
		list, _ := x[k].([]any)
		for _, v := range list {
			points(k, v, class)
		}
	}
	list, _ := x["certificates"].([]any)
	for _, v := range list {
		c, _ := v.(map[string]any)
		points("certificates", c["certificate"], "Certificate")
	}
}

func validateMembers(at string, x map[string]any, bad func(string, ...any)) {
	list, _ := x["members"].([]any)
	for i, v := range list {
		m, _ := v.(map[string]any)
		strict(fmt.Sprintf("%s/members/%d", at, i), "member", m, bad)
		if n := whole(m["ratio"], 1); n < 0 || n > 100 {
			bad("%s/members/%d/ratio: should be <= 100", at, i)
		}
		if n := whole(m["priorityGroup"], 0); n < 0 || n > 65535 {
			bad("%s/members/%d/priorityGroup: should be <= 65535", at, i)
		}
	}
	if n := whole(x["slowRampTime"], 10); n < 0 || n > 900 {
		bad("%s/slowRampTime: should be <= 900", at)
	}
}
