//go:build unix

package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"github.com/aovlb/aovlb/plugins/proto/wire"
)

// tie ties the life of a program to ours: it has the reading end of a pipe whose
// other end nobody else has. It is the leader of a group of its own, so that an
// interrupt of the terminal is for us, and its children end with it.
func tie(cmd *exec.Cmd) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.ExtraFiles = []*os.File{r}
	cmd.Env = append(cmd.Env, fmt.Sprintf("%s=%d", wire.ParentKey, 3))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return w, nil
}

// killGroup ends what a program left behind.
func killGroup(cmd *exec.Cmd) {
	for _, f := range cmd.ExtraFiles {
		f.Close()
	}
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
}

// tryLock locks a file, and reports whether nobody else had.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// mine reports whether a file is ours.
func mine(info fs.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == os.Getuid()
}
