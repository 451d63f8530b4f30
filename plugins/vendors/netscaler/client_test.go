package netscaler

import (
	"strings"
	"testing"
)

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   string // part of the error; empty for none
	}{
		{200, `{"errorcode":0,"message":"Done","severity":"NONE"}`, ""},
		{201, ``, ""},
		{209, `{"errorcode":1067,"message":"Feature(s) not enabled [SSL]","severity":"WARNING"}`, ""},
		{200, `{"errorcode":1095,"message":"no","severity":"ERROR"}`, "error 1095, HTTP 200"},
		{404, `{"errorcode":258,"message":"No such resource","severity":"ERROR"}`, "error 258"},
		{401, ``, "error 444"},
		{302, ``, "HTTP 302"},
		{503, `<html>`, "no JSON"},
		{200, `[1`, "no JSON"},
	} {
		err := judge(c.status, []byte(c.body), "try", nil)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%d %s: %v", c.status, c.body, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%d %s: %v, want %q", c.status, c.body, err, c.want)
		}
	}
}

func TestCodes(t *testing.T) {
	for in, want := range map[string]string{"401": "401", "3,2": "2-3", "2-3": "2-3", "200-300,301-399,100": "100,200-399", "": "", "x": "x", "5-9,6": "5-9"} {
		if got := codes(in); got != want {
			t.Errorf("codes(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestQuery(t *testing.T) {
	if got, want := query([]string{"filelocation", "/nsconfig/ssl", "type", "PING"}), "?args=filelocation:%2Fnsconfig%2Fssl,type:PING"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
