// The parts of d3 that the viewer uses; its own types are not vendored.
export declare const d3: any;
