package config

import (
	"errors"
	"io/fs"
	"os"
)

// namedFile is a file that the configuration names and that something opens later.
type namedFile struct {
	at   Error // all but the message
	name string
	want string
}

// file is the name of a file, which [Config.CheckFiles] looks for.
type file struct{ scalar }

func fileName(into *string, want string) file { return file{text(into, want)} }

func (f file) read(d *decoder, n *node) {
	f.scalar.read(d, n)
	if n.kind == kindScalar && !n.failed {
		p := n.where()
		at := Error{File: d.file, Line: p.line, Column: p.column, Path: n.path()}
		d.files = append(d.files, namedFile{at, n.text, f.want})
	}
}

// CheckFiles opens the files that the configuration names, certificates, roots and maps, and reports in [Errors] each
// that cannot be read. It reads nothing of them, and Load has read those of secrets.
func (c *Config) CheckFiles() error {
	var errs Errors
	for _, f := range c.files {
		if err := readable(f.name); err != nil {
			e := f.at
			e.Message = quote(f.name) + " cannot be read, " + err.Error() + ": want " + f.want
			errs = append(errs, &e)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return errs.sorted()
}

// readable opens a file. What is no regular file is left alone: a pipe would wait for its writer.
func readable(name string) error {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return reason(err)
	case info.IsDir():
		return errors.New("it is a directory")
	case !info.Mode().IsRegular():
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return reason(err)
	}
	return f.Close()
}

// reason is an error without the name of the file.
func reason(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
