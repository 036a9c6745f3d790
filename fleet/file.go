package fleet

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A lone node's log is one file: a header, then records, each synced before it is acknowledged.
//
//	header: magic, 8 bytes | made, 8: nanoseconds since 1970 | CRC-32C of both, 4
//	record: length of data, 4 | CRC-32C of what follows, 4 | sequence, 8 | stored, 8 | data
//
// What does not check is dropped with all that follows it, and the log counts as made anew: a follower that could have
// seen the dropped part is told.
const (
	fileMagic    = "nzlog\x00\x00\x01"
	fileHeader   = 20
	recordHeader = 24
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is one entry: in memory when data is not nil, else size bytes at offset of the file.
type record struct {
	seq    uint64
	stored time.Time
	size   int
	offset int64
	data   []byte
}

func encodeHeader(made time.Time) []byte {
	b := append(make([]byte, 0, fileHeader), fileMagic...)
	b = binary.BigEndian.AppendUint64(b, uint64(made.UnixNano()))
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeHeader(b []byte) (time.Time, bool) {
	if len(b) < fileHeader || string(b[:8]) != fileMagic ||
		crc32.Checksum(b[:16], castagnoli) != binary.BigEndian.Uint32(b[16:]) {
		return time.Time{}, false
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(b[8:]))), true
}

func encodeRecord(seq uint64, stored time.Time, data []byte) []byte {
	b := make([]byte, recordHeader, recordHeader+len(data))
	binary.BigEndian.PutUint32(b, uint32(len(data)))
	binary.BigEndian.PutUint64(b[8:], seq)
	binary.BigEndian.PutUint64(b[16:], uint64(stored.UnixNano()))
	b = append(b, data...)
	binary.BigEndian.PutUint32(b[4:], crc32.Checksum(b[8:], castagnoli))
	return b
}

var errDamaged = errors.New("damaged record")

// readRecord reads one record, without its data; io.EOF is the end between two.
func readRecord(r io.Reader) (record, error) {
	var head [recordHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return record{}, errDamaged
		}
		return record{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > MaxMessage {
		return record{}, errDamaged
	}
	sum := crc32.New(castagnoli)
	sum.Write(head[8:])
	if _, err := io.CopyN(sum, r, int64(size)); err != nil {
		return record{}, errDamaged
	}
	if sum.Sum32() != binary.BigEndian.Uint32(head[4:]) {
		return record{}, errDamaged
	}
	return record{
		seq: binary.BigEndian.Uint64(head[8:]), size: int(size),
		stored: time.Unix(0, int64(binary.BigEndian.Uint64(head[16:]))),
	}, nil
}

// scan reads what is whole of a log file. dropped says how many bytes after it are not.
func scan(f *os.File) (made time.Time, records []record, dropped int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, nil, 0, err
	}
	r := bufio.NewReaderSize(f, 64<<10)
	head := make([]byte, fileHeader)
	if _, err := io.ReadFull(r, head); err != nil {
		return time.Time{}, nil, info.Size(), nil
	}
	made, ok := decodeHeader(head)
	if !ok {
		return time.Time{}, nil, info.Size(), nil
	}
	end := int64(fileHeader)
	for {
		rec, err := readRecord(r)
		if errors.Is(err, errDamaged) || err == nil && len(records) > 0 && rec.seq != records[len(records)-1].seq+1 {
			return made, records, info.Size() - end, nil
		}
		if errors.Is(err, io.EOF) {
			return made, records, 0, nil
		}
		if err != nil {
			return made, records, 0, err
		}
		rec.offset = end + recordHeader
		end = rec.offset + int64(rec.size)
		records = append(records, rec)
	}
}

// writeLog writes a whole log file beside the old one and puts it in its place.
func writeLog(path string, made time.Time, records []record, read func(record) ([]byte, error)) ([]record, error) {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	kept, err := writeRecords(f, made, records, read)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(temp)
		return nil, err
	}
	if err := os.Rename(temp, path); err != nil {
		return nil, err
	}
	return kept, syncDir(filepath.Dir(path))
}

func writeRecords(f *os.File, made time.Time, records []record, read func(record) ([]byte, error)) ([]record, error) {
	w := bufio.NewWriterSize(f, 64<<10)
	if _, err := w.Write(encodeHeader(made)); err != nil {
		return nil, err
	}
	end := int64(fileHeader)
	kept := make([]record, 0, len(records))
	for _, r := range records {
		data, err := read(r)
		if err != nil {
			return nil, fmt.Errorf("read entry %d: %w", r.seq, err)
		}
		if _, err := w.Write(encodeRecord(r.seq, r.stored, data)); err != nil {
			return nil, err
		}
		r.offset = end + recordHeader
		end = r.offset + int64(r.size)
		kept = append(kept, r)
	}
	return kept, w.Flush()
}
