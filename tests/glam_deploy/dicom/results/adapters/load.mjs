// Loads a SEG object as a viewer built on Cornerstone3D does; prints how many pixels each of its segments covers.
// Arguments: the SEG file, then UIDs and shape of its source image as JSON.
import { readFileSync } from 'node:fs';

const [file, sourceText] = process.argv.slice(2);
const source = JSON.parse(sourceText);
const imageId = `wadouri:${source.SOPInstanceUID}`;

const modules = {
  // a mammogram has no orientation in space: the viewer's default
  imagePlaneModule: {
    rows: source.Rows,
    columns: source.Columns,
    rowCosines: [1, 0, 0],
    columnCosines: [0, 1, 0],
    imageOrientationPatient: [1, 0, 0, 0, 1, 0],
    imagePositionPatient: [0, 0, 0],
  },
  generalSeriesModule: { modality: 'MG', seriesInstanceUID: source.SeriesInstanceUID },
  generalImageModule: { sopInstanceUID: source.SOPInstanceUID },
  sopCommonModule: { sopInstanceUID: source.SOPInstanceUID, sopClassUID: source.SOPClassUID },
  instance: source,
};
const metadataProvider = { get: (type) => modules[type] };

const { metaData } = await import('@cornerstonejs/core');
metaData.addProvider(metadataProvider.get);
const { adaptersSEG } = await import('@cornerstonejs/adapters');
const bytes = readFileSync(file);
const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
const loaded = await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer([imageId], buffer, { metadataProvider });

const counts = {};
for (const images of loaded.labelMapImages) {
  for (const image of images) {
    for (const label of image.voxelManager.getScalarData()) {
      if (label) counts[label] = (counts[label] ?? 0) + 1;
    }
  }
}
console.log(JSON.stringify({ counts, labels: loaded.segMetadata.data.map((segment) => segment?.SegmentLabel ?? null) }));
