package server

import (
	"datawatch/internal/base"
	"datawatch/internal/sql/views"
	"datawatch/internal/storage/engine"
	"datawatch/internal/storage/redo"
)

func (v source) LogPkgs() []views.LogPkgRow {
	var out []views.LogPkgRow
	for _, p := range v.s.eng.LogPackages() {
		out = append(out, logPkgRow(p, v.s.eng.Mode()))
	}
	return out
}

func logPkgRow(p engine.LogPackage, m base.Mode) views.LogPkgRow {
	r := views.LogPkgRow{PkgLen: int64(p.HeaderLen) + int64(p.DataLen), DataOff: int64(p.RawLen), HdrSize: int(p.HeaderLen), Magic: int64(redo.Magic()),
		DBMagic: p.DBMagic, NDSC: int(p.NNodes), DSCSeqno: int(p.Node), Type: p.Kind, LSeqno: p.LSEQ, GSeqno: p.GSEQ, MinLSN: p.MinLSN, MaxLSN: p.MaxLSN,
		PrevLSN: p.PrevLSN, NFixed: int64(p.NPTX) + int64(p.Reserved), NFilled: int64(p.NPTX)}
	if p.Flags&redo.FlagS2 != 0 {
		r.CmprLen, r.EncCmpr = ptr(int64(p.DataLen)), 2
	}
	if m == base.ModePrimary {
		r.FromPrimary = 1
	}
	if p.Full {
		r.Stat = 2
	}
	return r
}

func (v source) LogPkgStat() []views.LogPkgStatRow {
	s := v.s.eng.LogStats()
	w := s.Written
	r := views.LogPkgStatRow{FlushTo: s.Requests, FlushWait: s.Waits, Pushed: s.Taken, CopyWait: s.Parts, Flushed: w.Packages, Bytes: w.Bytes,
		NextLSeq: s.NextLSEQ, AllocWait: s.Alloc, NextGSeq: s.NextGSEQ, FlushList: s.Waiting}
	if w.Packages > 0 {
		r.AvgBytes, r.AvgPtx = w.Bytes/w.Packages, w.PTX/w.Packages
	}
	return []views.LogPkgStatRow{r}
}
