//go:build !linux && !darwin

package rtt

func read(uintptr) (Info, error) { return Info{}, ErrUnsupported }
